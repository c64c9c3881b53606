"""The last stage's data: what jobs.train can read, with nothing of validation in training."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from comem_ray.artifacts import ArtifactError, StageFolder, write_parquet
from comem_ray.knowledge.items import ItemStore
from comem_ray.knowledge.schema import ITEM_SCHEMA
from comem_ray.training.data.samples import SampleSet
from examples.countries.train.adapter_data import best_items
from examples.countries.train.stages import Run
from examples.countries.world.sentences import item_text


@pytest.fixture(scope="module")
def items(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished items/ stage of the run's knowledge base, as jobs.ingest would leave it."""
    folder = tmp_path_factory.mktemp("items")
    stage = StageFolder(folder, "ingest", {"small": True})
    countries = [c for split in finished.adapter_countries().values() for c in split]
    rows = []
    for n, country in enumerate(countries):
        data = (finished.out / "source" / "images" / f"{country.code}.png").read_bytes()
        width, height = Image.open(io.BytesIO(data)).size
        rows.append(
            {
                "item_id": f"{n:024d}",
                "language": "en",
                "title": country.name,
                "text": item_text(country, "en"),
                "page_url": None,
                "image_url": None,  # jobs.ingest keeps none but http(s)
                "image": data,
                "width": width,
                "height": height,
                "source": "countries.tsv",
                "source_row": n,
            }
        )
    write_parquet(folder / "part-0000-000000.parquet", pa.Table.from_pylist(rows, ITEM_SCHEMA))
    stage.commit("part-0000-000000", "", {"part-0000-000000.parquet": len(rows)}, {"items": len(rows)})
    stage.close(["part-0000-000000"])
    return folder


@pytest.fixture(scope="module")
def data(finished: Run, items: Path) -> Path:
    finished.items = items
    finished.stage("samples")
    return finished.out / "data"


def rows(data: Path, split: str) -> list[dict]:
    return [row for path in sorted((data / split).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_the_training_loop_can_read_both_splits(data: Path, items: Path, finished: Run) -> None:
    store = ItemStore(items)
    for split, countries in finished.adapter_countries().items():
        samples = SampleSet(data / split, store, 3, 10_000_000)
        assert len(samples) == 4 * len(countries) == len({row["sample_id"] for row in rows(data, split)})
        sample = samples.get(0)
        assert len(sample.items) == 3
        assert sample.image is not None


def test_answers_are_those_of_the_gold_item_which_is_among_the_items(data: Path, items: Path, finished: Run) -> None:
    store = ItemStore(items)
    for split, countries in finished.adapter_countries().items():
        names = {c.code: c.name for c in countries}
        for row in rows(data, split):
            provenance = json.loads(row["provenance"])
            assert (provenance["source"], row["rule"]) == ("demo", "sentence")
            (gold,) = json.loads(row["gold"])
            assert gold in row["answer"]
            name = names[provenance["data_id"].rpartition("-")[0]]
            gold_items = [item for item in store.get(row["item_ids"]) if item.title == name]
            assert len(gold_items) == 1
            assert gold in gold_items[0].text


def test_no_item_serves_both_splits(data: Path) -> None:
    training, validation = ({i for row in rows(data, p) for i in row["item_ids"]} for p in ("training", "validation"))
    assert training
    assert validation
    assert not training & validation


def test_items_of_another_knowledge_base_are_refused(finished: Run, tmp_path: Path) -> None:
    stage = StageFolder(tmp_path, "ingest", {"small": True})
    write_parquet(tmp_path / "part-0000-000000.parquet", pa.Table.from_pylist([], ITEM_SCHEMA))
    stage.commit("part-0000-000000", "", {"part-0000-000000.parquet": 0}, {"items": 0})
    stage.close(["part-0000-000000"])
    other = Run(finished.out, sizes="small", items=tmp_path)
    with pytest.raises(ArtifactError, match=r"run jobs\.ingest"):
        other._samples()


def test_the_right_item_is_kept_where_retrieval_missed_it() -> None:
    gallery = torch.eye(5)
    questions = torch.tensor([[0.9, 0.3, 0.2, 0.1, 0.0], [0.9, 0.3, 0.2, 0.1, 0.0]])
    assert best_items(questions, gallery, torch.tensor([1, 4]), 3).tolist() == [[0, 1, 2], [0, 1, 4]]
