"""jobs.build_index on a real local Ray: right indexes, and the same bytes after kill -9."""

import json
import shutil
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from support.tiny import stage_bytes

from comem_ray.artifacts import ArtifactError, OpenStage, StageFolder, load_manifest, write_parquet
from comem_ray.config import Config, ConfigError
from comem_ray.knowledge.schema import ITEM_SCHEMA, embedding_schema
from comem_ray.retrieval.index import ItemIndex
from jobs.build_index import run

N, C, SHARD = 6_000, 32, 1_500
# Training of an IVF and a PQ takes a second: time to be killed in.
INDEX = {"factory": "IVF32,PQ8x4", "training_items": 4_000, "search": {"nprobe": 8}, "recall_queries": 50}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """items/ and embeddings/ of N items, clustered."""
    root = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, C))
    items = StageFolder(root / "items", "ingest", {})
    stage = StageFolder(root / "embeddings", "embed_items", {"clip": "c" * 64, "width": C, "texts": True})
    units = [f"part-0000-{i:06d}" for i in range(N // SHARD)]
    for number, unit in enumerate(units):
        ids = [f"{number * SHARD + i:024x}" for i in range(SHARD)]
        write_parquet(root / "items" / f"{unit}.parquet", item_table(ids))
        [shard] = items.commit(unit, "", {f"{unit}.parquet": SHARD}, {"items": SHARD}).shards
        columns = [[bytes(16)] * SHARD, *(vector_column(rng, centres) for _ in ("image", "text"))]
        write_parquet(root / "embeddings" / f"{unit}.parquet", pa.table([ids, *columns], schema=embedding_schema(C)))
        stage.commit(unit, shard.sha256, {f"{unit}.parquet": SHARD}, {"items": SHARD})
    items.close(units)
    stage.close(units)
    return root


def item_table(ids: list[str]) -> pa.Table:
    row = {"language": "en", "title": "", "text": "", "image": b"", "width": 1, "height": 1, "source": ""}
    rows = [{**row, "item_id": i, "language": ["en", "de"][n % 2], "source_row": n} for n, i in enumerate(ids)]
    return pa.Table.from_pylist(rows, ITEM_SCHEMA)


def vector_column(rng, centres) -> pa.Array:
    vectors = centres[rng.integers(0, len(centres), SHARD)] + 0.5 * rng.standard_normal((SHARD, C))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), C)


@pytest.fixture(scope="module")
def make_run(make_config, source, tmp_path_factory):
    """A function (name, fields of `index`) -> configuration of a run of its own, over the same embeddings."""
    home = tmp_path_factory.mktemp("home")

    def make(name: str, **fields) -> Config:
        config = make_config(root=str(home / name), index={**INDEX, **fields})
        for stage in ("items", "embeddings"):
            shutil.copytree(source / stage, config.folder(stage))
        (home / f"{name}.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
        return config

    return make


@pytest.fixture(scope="module")
def uninterrupted(make_run, cluster):
    config = make_run("uninterrupted")
    return config, run(config)


def test_summary_has_recall_and_times(uninterrupted):
    config, summary = uninterrupted
    assert summary["items"] == N
    for kind in ("image", "text"):
        assert 0.1 < summary[f"{kind} recall@10"] < 1
        assert 0 < summary[f"{kind} search ms p50"] <= summary[f"{kind} search ms p99"]
    recall = load_manifest(config.folder("index"), "build_index").extra["recall"]
    assert recall["text"] == {"queries": 50, "recall_at_10": summary["text recall@10"]}


def index_path(folder: Path, kind: str) -> Path:
    shard = load_manifest(folder, "build_index").shard(f"{kind}.faiss")
    assert shard is not None
    return folder / shard.name


def test_the_indexes_hold_every_item_with_its_language(uninterrupted, source):
    folder = uninterrupted[0].folder("index")
    for kind in ("image", "text"):
        index = ItemIndex.load(OpenStage(folder, "build_index"), kind, {"nprobe": 32})
        assert index.ids[:3].tolist() == [f"{i:024x}".encode() for i in range(3)]
        assert index.languages[:4].tolist() == [b"en", b"de", b"en", b"de"]
        plain = faiss.read_index(str(index_path(folder, kind)))
        assert (plain.ntotal, plain.metric_type) == (N, faiss.METRIC_INNER_PRODUCT)


def test_a_rerun_does_nothing(uninterrupted):
    config, summary = uninterrupted
    before = stage_bytes(config.folder("index"))
    again = run(config)
    assert stage_bytes(config.folder("index")) == before
    assert again == summary


def test_other_search_parameters_measure_again_and_build_nothing(make_run, uninterrupted):
    config = make_run("search", search={"nprobe": 1})
    shutil.copytree(uninterrupted[0].folder("index"), config.folder("index"))
    built = index_path(config.folder("index"), "image").stat().st_mtime_ns
    summary = run(config)
    assert summary["image recall@10"] < uninterrupted[1]["image recall@10"]
    assert index_path(config.folder("index"), "image").stat().st_mtime_ns == built


def test_another_factory_is_refused(uninterrupted):
    config, _ = uninterrupted
    index = config.index.model_copy(update={"factory": "Flat"})
    with pytest.raises(ArtifactError, match="factory: stored 'IVF32,PQ8x4', now 'Flat'"):
        run(config.model_copy(update={"index": index}))


def test_embeddings_of_other_items_are_refused(make_run, cluster):
    config = make_run("stale")
    items = StageFolder(config.folder("items"), "ingest", {})
    unit = "part-0000-000000"
    write_parquet(items.path / f"{unit}.parquet", item_table(["f" * 24]))
    items.commit(unit, "", {f"{unit}.parquet": 1}, {"items": 1})
    items.close([f"part-0000-{i:06d}" for i in range(N // SHARD)])
    with pytest.raises(ArtifactError, match=r"are not those of the items .* run jobs.embed_items"):
        run(config)


def test_an_index_above_the_cap_ends_with_one_message(make_run, start_job):
    config = make_run("large")
    changed = ("--set", "index.factory=Flat", "--set", "index.max_memory_gb=0.0005")
    output = start_job("jobs.build_index", Path(f"{config.root}.yaml"), *changed).finish(2)
    messages = [line for line in output.splitlines() if line.startswith("configuration: ")]
    assert messages == [
        "configuration: index: 'Flat' of 6,000 vectors takes 0.000768 GB, index.max_memory_gb is 0.0005: raise it, or "
        "choose a factory with smaller codes (such as IVF4096,PQ64)"
    ]


def test_a_wrong_factory_ends_with_one_message(make_run, start_job):
    config = make_run("wrong")
    output = start_job("jobs.build_index", Path(f"{config.root}.yaml"), "--set", "index.factory=IVX7").finish(2)
    assert output.splitlines()[-1].startswith("configuration: index.factory 'IVX7' cannot hold vectors of width 32")
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("factory", "fault"),
    [
        ("PQ16x4", "search among the items of one language: invalid search params"),
        ("IVF8,PQ16x4fs", "give its vectors back, which a search by both needs: FAISS ends the process"),
    ],
)
def test_a_factory_that_cannot_do_all_is_refused_before_it_counts(make_run, cluster, factory, fault):
    config = make_run(f"partial-{factory}", factory=factory, search={})
    with pytest.raises(ConfigError, match=f"index.factory '{factory}' makes an index that cannot {fault}") as error:
        run(config)
    assert "Factories that do all that is needed" in str(error.value)
    folder = config.folder("index")
    assert {path.stem for path in (folder / "records").glob("*.json")} <= {"items"}  # neither index counts
    assert not (folder / "manifest.json").exists()
    mended = config.index.model_copy(update={"factory": "IVF8,Flat"})
    summary = run(config.model_copy(update={"index": mended}))  # the folder is not held by what was refused
    assert summary["image recall@10"] > 0.1
    assert load_manifest(folder, "build_index").extra["probed"] is True


def test_an_index_of_before_is_tried_when_the_job_runs_again(make_run, uninterrupted):
    """Version 0.2 did not try its indexes: their units stay, but are tried before they are measured."""
    config = make_run("before")
    shutil.copytree(uninterrupted[0].folder("index"), config.folder("index"))
    for kind in ("image", "text"):
        path = config.folder("index") / "records" / f"{kind}.recall.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "inputs": "of version 0.2"}))
    built = (config.folder("index") / "records" / "image.json").read_bytes()
    run(config)
    assert (config.folder("index") / "records" / "image.json").read_bytes() == built
    assert load_manifest(config.folder("index"), "build_index").extra["probed"] is True


@pytest.mark.parametrize(
    ("value", "fault"), [(np.nan, "is not finite"), (np.inf, "is not finite"), (0, "is all zeros")]
)
def test_a_vector_that_cannot_be_compared_is_named_with_its_file_and_item(make_run, cluster, value, fault):
    config = make_run(f"vector-{value}")
    folder = config.folder("embeddings")
    manifest = load_manifest(folder, "embed_items")
    stage = StageFolder(folder, manifest.stage, manifest.identity)
    record = manifest.records[1]
    table = pq.read_table(folder / record.shards[0].name)
    vectors = table["text_embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, C).copy()
    vectors[7] = value
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), C)
    position = table.column_names.index("text_embedding")
    write_parquet(folder / f"{record.unit}.parquet", table.set_column(position, table.schema.field(position), column))
    stage.commit(record.unit, record.inputs, {f"{record.unit}.parquet": SHARD}, record.counts)
    stage.close([r.unit for r in manifest.records], manifest.extra)
    with pytest.raises(ArtifactError, match=rf"{record.unit}\S*\.parquet: the text embedding of item \w+5e3 {fault}"):
        run(config)


@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_killed_then_rerun_equals_uninterrupted(uninterrupted, make_run, start_job, victim):
    config = make_run(f"killed-{victim}")
    folder = config.folder("index")
    job = start_job("jobs.build_index", Path(f"{config.root}.yaml"))
    # The ids are written: the first index is being built.
    job.wait_for(lambda: (folder / "records" / "items.json").exists())
    if victim == "driver":
        job.kill()
        assert not (folder / "manifest.json").exists()
        job = start_job("jobs.build_index", Path(f"{config.root}.yaml"))
    else:
        job.kill_worker("BuildIndex")
    job.finish()
    assert stage_bytes(folder) == stage_bytes(uninterrupted[0].folder("index"))
    summary = json.loads((config.folder("summaries") / "build_index.json").read_text())
    assert summary["image recall@10"] == uninterrupted[1]["image recall@10"]
