"""jobs.embed_items on a real local Ray: right vectors, and the same bytes after kill -9."""

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from support.tiny import item_row, rename_to_old_columns, write_items
from support.tiny_clip import write_clip

from comem_ray.artifacts import ArtifactError
from comem_ray.config import Config
from comem_ray.knowledge.schema import embedding_schema
from comem_ray.retrieval.clip import ClipEncoder
from comem_ray.retrieval.embeddings import Embeddings
from jobs.embed_items import run

SIZES = [40, 0, 33, 50, 25, 30, 45, 20]


@pytest.fixture(scope="module")
def make_run(make_config, tmp_path_factory):
    """A function (name, fields of `clip`) -> configuration of a run of its own, over the same items."""
    home = tmp_path_factory.mktemp("home")
    section, _ = write_clip(home)

    def make(name: str, workers: int = 1, **fields) -> Config:
        pool = {"count": workers, "cpus": 1}
        clip = {**section, "batch_size": 8, "decode_threads": 2, "workers": pool, **fields}
        config = make_config(root=str(home / name), clip=clip)
        write_items(config.folder("items"), SIZES)
        (home / f"{name}.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
        return config

    return make


@pytest.fixture(scope="module")
def uninterrupted(make_run, cluster):
    config = make_run("uninterrupted")
    return config, run(config)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_item_has_the_vectors_of_its_image_and_text(uninterrupted):
    config, summary = uninterrupted
    assert (summary["items"], summary["shards"], summary["kept"], summary["width"]) == (sum(SIZES), 8, 0, 24)
    rows, encoder = [item_row(i) for i in range(sum(SIZES))], ClipEncoder(config.clip)
    images = [Image.open(io.BytesIO(row["image"])) for row in rows]
    embeddings = Embeddings(config.folder("embeddings"))
    assert embeddings.clip == encoder.fingerprint
    assert embeddings.item_ids() == [row["item_id"] for row in rows]
    got = np.concatenate(list(embeddings.blocks("image")))
    np.testing.assert_allclose(got, encoder.embed_images(images), atol=1e-3)
    got = np.concatenate(list(embeddings.blocks("text")))
    np.testing.assert_allclose(got, encoder.embed_texts([row["text"] for row in rows]), atol=1e-3)


def test_the_files_follow_the_schema_shard_by_shard(uninterrupted):
    folder = uninterrupted[0].folder("embeddings")
    for number, size in enumerate(SIZES):
        table = pq.read_table(folder / f"part-0000-{number:06d}.parquet")
        assert table.schema.equals(embedding_schema(24))
        assert len(table) == size


def test_a_rerun_does_nothing(uninterrupted):
    config, _ = uninterrupted
    before = contents(config.folder("embeddings"))
    assert run(config)["kept"] == len(SIZES)
    assert contents(config.folder("embeddings")) == before


def test_only_a_changed_shard_is_done_again(make_run, uninterrupted):
    config = make_run("changed")
    shutil.copytree(uninterrupted[0].folder("embeddings"), config.folder("embeddings"))
    write_items(config.folder("items"), [*SIZES[:-1], SIZES[-1] + 3])
    assert run(config)["kept"] == len(SIZES) - 1
    assert len(Embeddings(config.folder("embeddings"))) == sum(SIZES) + 3


def test_images_alone(make_run, uninterrupted):
    config = make_run("images", texts=False)
    run(config)
    embeddings = Embeddings(config.folder("embeddings"))
    assert embeddings.kinds == ("image",)
    table = pq.read_table(config.folder("embeddings") / "part-0000-000000.parquet")
    assert table.column_names == ["item_id", "image_embedding"]
    both = Embeddings(uninterrupted[0].folder("embeddings"))
    for a, b in zip(embeddings.blocks("image"), both.blocks("image"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_items_of_version_0_1_are_embedded(make_run, uninterrupted):
    config = make_run("old")
    rename_to_old_columns(config.folder("items"))
    run(config)
    assert contents(config.folder("embeddings")) == contents(uninterrupted[0].folder("embeddings"))


def test_another_model_is_refused(make_run, uninterrupted):
    config, _ = uninterrupted
    other, _ = write_clip(Path(config.root).parent, "other", seed=7)
    with pytest.raises(ArtifactError, match=r"started with another configuration .*clip: stored"):
        run(config.model_copy(update={"clip": config.clip.model_copy(update=other)}))


def test_without_items_the_stage_to_run_is_named(make_run, cluster):
    config = make_run("empty")
    (config.folder("items") / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="run the stage 'ingest'"):
        run(config)


@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_killed_then_rerun_equals_uninterrupted(uninterrupted, make_run, start_job, victim):
    config = make_run(f"killed-{victim}", workers=2)
    folder = config.folder("embeddings")
    job = start_job("jobs.embed_items", Path(f"{config.root}.yaml"))
    job.wait_for(lambda: len(list((folder / "records").glob("*.json"))) >= 2)
    if victim == "driver":
        job.kill()
        assert not (folder / "manifest.json").exists()
        job = start_job("jobs.embed_items", Path(f"{config.root}.yaml"))
    else:
        job.kill_worker("EmbedShard")
    job.finish()
    assert contents(folder) == contents(uninterrupted[0].folder("embeddings"))
