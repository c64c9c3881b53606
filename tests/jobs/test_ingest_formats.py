"""jobs.ingest on a real local Ray: every format in one run, and ready embeddings on their way to an index."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.ingesting import configuration, rows_of, stored
from support.sources import IMAGE_TYPE, samples, write_dataset, write_tar
from support.tiny import png
from support.tiny_clip import write_clip

from comem_ray.config import Config, ConfigError
from comem_ray.retrieval.embeddings import Embeddings
from jobs import embed_items, ingest

C = 24
KEYS = [f"{n:09d}" for n in range(10)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A source of each format, of ten rows or fewer; one row of each is bad."""
    folder = tmp_path_factory.mktemp("sources")
    write_tar(folder / "web.tar", {**samples(9), "bad.jpg": b"image"})
    (folder / "fetched").mkdir()
    write_tar(folder / "fetched" / "00000.tar", {name: data for name, data in samples(9).items() if "png" in name})
    status = ["success"] * 9 + ["failed_to_download"]
    metadata = {"key": KEYS, "caption": [f"fetched {n}" for n in range(10)], "status": status}
    pq.write_table(pa.table(metadata), folder / "fetched" / "00000.parquet")
    rows = [{"image": {"bytes": png(n), "path": None}, "alt": f"saved {n}"} for n in range(9)]
    schema = pa.schema([("image", IMAGE_TYPE), ("alt", pa.string())])
    write_dataset(folder / "saved", [rows[:4], [*rows[4:], {"image": None, "alt": "bad"}]], schema)
    (folder / "plain").mkdir()
    for n in range(9):
        (folder / "plain" / f"{n}.png").write_bytes(png(n))
        (folder / "plain" / f"{n}.txt").write_text(f"plain {n}")
    (folder / "plain" / "bad.txt").write_text("no image")
    write_embeddings(folder / "embedded", vectors())
    return folder


def vectors() -> np.ndarray:
    rows = np.random.default_rng(3).normal(size=(10, C)).astype(np.float16)
    rows[9] = np.nan
    return rows


def write_embeddings(folder: Path, rows: np.ndarray) -> None:
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    np.save(folder / "img_emb" / "img_emb_0.npy", rows)
    metadata = {"image_path": KEYS, "caption": [f"embedded {n}" for n in range(10)]}
    pq.write_table(pa.table(metadata), folder / "metadata" / "metadata_0.parquet")


def config_of(folder: Path, home: Path, rows: int = 4, **clip: str) -> Config:
    section, _ = write_clip(home)
    embedded = {"path": str(folder / "embedded"), "images": str(folder / "fetched"), "clip_model": section["model"]}
    embedded |= {"clip_pretrained": section["pretrained"], **clip}
    sources = [
        {"path": str(folder / "web.tar")},
        {"path": str(folder / "fetched")},
        {"path": str(folder / "saved"), "columns": {"text": "alt"}},
        {"path": str(folder / "plain")},
        embedded,
    ]
    config = configuration(home, sources, rows_per_shard=rows)
    return Config.model_validate({**config.model_dump(mode="json"), "clip": section})


def test_every_format_makes_items_and_rejects_its_bad_row(folder, tmp_path, cluster):
    config = config_of(folder, tmp_path)
    summary = ingest.run(config)
    items, rejected = rows_of(config)
    assert (summary["rows"], summary["items"], summary["rejected"]) == (50, 45, 5)
    texts = [f"{name} {n}" for name in ("caption", "fetched", "saved", "plain", "embedded") for n in range(9)]
    assert [item["text"] for item in items] == texts
    reasons = ["no_text", "download_failed", "no_image", "no_image", "embedding_not_finite"]
    assert sorted(row["reason"] for row in rejected) == sorted(reasons)
    before = stored(config)
    assert ingest.run(config)["shards made now"] == 0
    assert stored(config) == before
    again = config_of(folder, tmp_path / "again")
    ingest.run(again)
    assert [data for name, data in stored(again).items() if name.endswith(".parquet")] == [
        data for name, data in before.items() if name.endswith(".parquet")
    ]


def test_ready_embeddings_are_taken_and_not_computed(folder, tmp_path, cluster):
    config = config_of(folder, tmp_path)
    ingest.run(config)
    summary = embed_items.run(config)
    assert (summary["items"], summary["items computed"], summary["items taken over"]) == (45, 36, 9)
    embeddings = Embeddings(config.folder("embeddings"))
    got = np.concatenate(list(embeddings.blocks("image")))[36:]
    rows = vectors()[:9].astype(np.float32)
    np.testing.assert_allclose(got, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-3)
    changed = vectors()
    changed[2] = changed[3]
    write_embeddings(folder / "embedded", changed)
    try:
        assert ingest.run(config)["shards made now"] == 1
        assert embed_items.run(config)["items computed"] == 0
        got = np.concatenate(list(Embeddings(config.folder("embeddings")).blocks("image")))
        np.testing.assert_array_equal(got[36 + 2], got[36 + 3])
    finally:
        write_embeddings(folder / "embedded", vectors())


def test_embeddings_of_another_model_are_refused(folder, tmp_path, cluster):
    with pytest.raises(ConfigError, match="must be equal"):
        ingest.run(config_of(folder, tmp_path, clip_model="ViT-L-14"))
    write_embeddings(tmp_path / "other" / "embedded", np.ones((10, 8), np.float32))
    for name in ("web.tar", "fetched", "saved", "plain"):
        (tmp_path / "other" / name).symlink_to(folder / name)
    with pytest.raises(ConfigError, match="width 8"):
        ingest.run(config_of(tmp_path / "other", tmp_path))
    assert json.dumps(sorted(p.name for p in (tmp_path / "run").rglob("*.parquet"))) == "[]"
