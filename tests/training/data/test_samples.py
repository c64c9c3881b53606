"""Training samples: what a shard holds, shards of older versions, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tiny import png, write_items
from support.tiny_training import write_samples

from comem_ray.artifacts import ArtifactError
from comem_ray.knowledge.items import ItemStore
from comem_ray.training.data.samples import REJECTED, TRAINING_SCHEMA, SampleSet, stored_samples

PIXELS = 10_000


@pytest.fixture
def store(tmp_path) -> ItemStore:
    write_items(tmp_path / "items", [8])
    return ItemStore(tmp_path / "items")


def row(store: ItemStore, **changed) -> dict:
    return {
        "sample_id": "a",
        "question": "Who?",
        "image": png(1),
        "item_ids": list(store.ids[:3]),
        "answer": "It is Ann.",
        "language": "en",
        "rule": "vqa",
        "gold": json.dumps(["Ann"] * 10),
        "provenance": json.dumps({"source": "own", "data_id": "1"}),
        **changed,
    }


def old_row(store: ItemStore, **provenance) -> dict:
    """A row of version 0.2: rule and gold stand in the provenance."""
    new = row(store, provenance=json.dumps({"benchmark": "own", **provenance}))
    return {name: value for name, value in new.items() if name not in ("rule", "gold")}


def write(folder: Path, name: str, *rows: dict) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / name)
    return folder


def test_a_sample(store, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist([row(store)], TRAINING_SCHEMA), folder / "part.parquet")
    samples = SampleSet(folder, store, 2, PIXELS)
    sample = samples.get(0)
    assert (sample.question, sample.answer, sample.rule, sample.gold) == ("Who?", "It is Ann.", "vqa", ["Ann"] * 10)
    assert sample.image is not None
    assert [len(sample.items), *sample.item_ids] == [2, *store.ids[:2]]
    assert samples.rules() == {"vqa"}


def test_rule_and_gold_of_a_shard_of_version_0_2_stand_in_its_provenance(store, tmp_path):
    folder = write(tmp_path / "data", "part.parquet", old_row(store, rule="vqa", gold=["dog"] * 10), old_row(store))
    samples = SampleSet(folder, store, 3, PIXELS)
    assert [(s.rule, s.gold) for s in map(samples.get, range(2))] == [("vqa", ["dog"] * 10), ("exact", ["It is Ann."])]
    assert samples.rules() == {"vqa", "exact"}


def test_the_image_of_a_shard_of_version_0_1_is_called_picture(store, tmp_path):
    newer = old_row(store, rule="exact", gold=["Ann"])
    old = {"picture" if name == "image" else name: value for name, value in newer.items()}
    folder = write(tmp_path / "data", "part.parquet", old)
    write(folder, "part-1.parquet", row(store))  # a folder may hold both
    samples = SampleSet(folder, store, 3, PIXELS)
    assert [samples.get(i).image is not None for i in range(2)] == [True, True]


def test_the_digest_is_of_what_training_sees(store, tmp_path):
    def digest(name: str, *rows: dict) -> str:
        return SampleSet(write(tmp_path / name, "part.parquet", *rows), store, 3, PIXELS).digest

    assert (
        digest("new", row(store)) == digest("old", old_row(store, rule="vqa")) == digest("x", row(store, rule="exact"))
    )
    assert digest("other", row(store, answer="Bob")) != digest("again", row(store))


def test_what_is_refused(store, tmp_path):
    folder = write(tmp_path / "data", f"part{REJECTED}", row(store))
    with pytest.raises(ArtifactError, match=r"holds no training sample: run jobs\.synthesize"):
        SampleSet(folder, store, 3, PIXELS)
    assert stored_samples(folder) == 0
    write(folder, "part.parquet", row(store, item_ids=["gone"]))
    with pytest.raises(ArtifactError, match="names 1 items that are not in the knowledge base: gone"):
        SampleSet(folder, store, 3, PIXELS)


def test_sets_are_equal_where_the_items_are(store, tmp_path):
    write_samples(tmp_path / "data", list(store.ids))
    sets = SampleSet(tmp_path / "data", store, 3, PIXELS).sets()
    assert sets == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]  # ten samples over eight items
