"""jobs.embed_items on a real local Ray: right vectors, and the same bytes after kill -9."""

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from support.tiny import item_row, png, rename_to_old_columns, shard_paths, stage_bytes, write_items
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
    for path, size in zip(shard_paths(folder), SIZES, strict=True):
        table = pq.read_table(path)
        assert table.schema.equals(embedding_schema(24))
        assert len(table) == size


def test_a_rerun_does_nothing(uninterrupted):
    config, _ = uninterrupted
    before = stage_bytes(config.folder("embeddings"))
    assert run(config)["kept"] == len(SIZES)
    assert stage_bytes(config.folder("embeddings")) == before


def test_only_a_changed_shard_is_done_again(make_run, uninterrupted):
    config = make_run("changed")
    shutil.copytree(uninterrupted[0].folder("embeddings"), config.folder("embeddings"))
    write_items(config.folder("items"), [*SIZES[:-1], SIZES[-1] + 3])
    assert run(config)["kept"] == len(SIZES) - 1
    assert len(Embeddings(config.folder("embeddings"))) == sum(SIZES) + 3


def test_items_that_moved_are_taken_over_by_id(make_run, uninterrupted):
    """All items behind a new one stand in other shards than before: the new one alone is computed."""
    config = make_run("moved")
    shutil.copytree(uninterrupted[0].folder("embeddings"), config.folder("embeddings"))
    write_items(config.folder("items"), [50, 0, 50, 50, 50, 43, 1], first=[900])
    summary = run(config)
    assert (summary["items computed"], summary["items taken over"]) == (1, sum(SIZES))
    moved, before = Embeddings(config.folder("embeddings")), Embeddings(uninterrupted[0].folder("embeddings"))
    assert moved.item_ids() == [item_row(900)["item_id"], *before.item_ids()]
    for kind in ("image", "text"):
        after, earlier = (np.concatenate(list(embeddings.blocks(kind))) for embeddings in (moved, before))
        np.testing.assert_array_equal(after[1:], earlier)


def test_an_item_whose_image_changed_is_computed_again(make_run, uninterrupted):
    config = make_run("image")
    shutil.copytree(uninterrupted[0].folder("embeddings"), config.folder("embeddings"))
    write_items(config.folder("items"), SIZES, images={45: item_row(200)["image"]})
    summary = run(config)
    assert (summary["items computed"], summary["items taken over"], summary["kept"]) == (1, 32, 7)


def test_a_bad_item_costs_itself_and_is_named(make_run, cluster):
    """Items that this version would not have let in: of an older one, or after a change of limits."""
    config = make_run("bad")
    write_items(config.folder("items"), SIZES, images={3: b"not an image", 45: png(1, 60_000, 1)[:200]})
    summary = run(config)
    assert (summary["items"], summary["rejected"], summary["rejected.image_refused"]) == (sum(SIZES) - 2, 2, 2)
    assert str(summary["first rejected"]).startswith(item_row(3)["item_id"])
    assert item_row(45)["item_id"] not in Embeddings(config.folder("embeddings")).item_ids()
    assert run(config)["kept"] == len(SIZES)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_shard_of_items_is_named_and_the_job_ends_with_3(make_run, start_job, damage):
    config = make_run(f"damaged-{damage}")
    path = shard_paths(config.folder("items"))[2]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage != "gone":
        path.write_bytes(data if damage == "flip" else data[:-9])
    output = start_job("jobs.embed_items", Path(f"{config.root}.yaml")).finish(3)
    last = output.splitlines()[-1]
    assert last.startswith(f"artifact: {path} ")
    assert last.endswith("Run the stage 'ingest' again: it makes this file again")
    assert "Traceback" not in output


def test_images_alone(make_run, uninterrupted):
    config = make_run("images", texts=False)
    run(config)
    embeddings = Embeddings(config.folder("embeddings"))
    assert embeddings.kinds == ("image",)
    table = pq.read_table(shard_paths(config.folder("embeddings"))[0])
    assert table.column_names == ["item_id", "content", "image_embedding"]
    both = Embeddings(uninterrupted[0].folder("embeddings"))
    for a, b in zip(embeddings.blocks("image"), both.blocks("image"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_items_of_version_0_1_are_embedded(make_run, uninterrupted):
    config = make_run("old")
    rename_to_old_columns(config.folder("items"))
    run(config)
    folders = config.folder("embeddings"), uninterrupted[0].folder("embeddings")
    old, new = ([path.read_bytes() for path in shard_paths(folder)] for folder in folders)
    assert old == new


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
    assert stage_bytes(folder) == stage_bytes(uninterrupted[0].folder("embeddings"))


def test_ctrl_c_is_one_line_that_says_how_to_go_on(uninterrupted, make_run, start_job):
    config = make_run("interrupted")
    folder = config.folder("embeddings")
    job = start_job("jobs.embed_items", Path(f"{config.root}.yaml"))
    job.wait_for(lambda: len(list((folder / "records").glob("*.json"))) >= 2)
    job.interrupt()
    output = job.finish(130)
    assert output.splitlines()[-1] == (
        "embed_items: interrupted. Finished units are kept: the same command goes on from there"
    )
    assert "Traceback" not in output
    assert run(config)["kept"] >= 2
    assert stage_bytes(folder) == stage_bytes(uninterrupted[0].folder("embeddings"))
