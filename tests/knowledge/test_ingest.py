"""One unit of the items stage, without Ray."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tiny import png, shard_paths
from support.website import Site, running

from comem_ray.artifacts import ArtifactError, Record, StageFolder, load_manifest
from comem_ray.config import IngestConfig
from comem_ray.knowledge.ingest import ImageMaker, Reuse, ingest_unit
from comem_ray.knowledge.schema import ITEM_SCHEMA, REJECTED_SCHEMA
from comem_ray.knowledge.sources.chunks import read_chunks
from comem_ray.knowledge.sources.files import SourceFile
from comem_ray.knowledge.sources.scan import NONE_DELETED, scan, units


@pytest.fixture
def site() -> Iterator[Site]:
    with running(Site()) as site:
        site.files = {f"/{n}.png": png(n) for n in range(200)}
        yield site


def make(
    folder: Path,
    rows: list[dict],
    limit: int = 1_000,
    recheck: bool = False,
    deleted: np.ndarray = NONE_DELETED,
    **fetch: object,
) -> list[Record]:
    """All units of a JSONL file of `rows`, made as the job makes them."""
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fast = {"allow_private": True, "retries": 0, "backoff_s": 0, **fetch}
    settings = IngestConfig.model_validate({"sources": [{"path": str(path)}], "fetch": fast, "rows_per_shard": limit})
    file = SourceFile("items", str(path), "jsonl", str(folder))
    (planned,) = units([file], [scan(file, limit, folder / "scan")], deleted)
    stage, maker = StageFolder(folder / "items", "ingest", {}), ImageMaker(settings, 1)
    earlier = stage.earlier()
    for unit, chunk in zip(planned, read_chunks(file, limit), strict=True):
        ingest_unit(file, unit, chunk.batch, stage, maker, Reuse(earlier, recheck))
    return stage.close([unit.name for unit in planned]).records


def read(folder: Path, name: str) -> pa.Table:
    shard = load_manifest(folder / "items", "ingest").shard(name)
    assert shard is not None
    return pq.read_table(folder / "items" / shard.name)


def items(folder: Path, unit: int = 0) -> list[dict]:
    table = read(folder, f"items-{unit:06d}.parquet")
    assert table.schema.equals(ITEM_SCHEMA)
    return table.to_pylist()


def rejected(folder: Path, unit: int = 0) -> list[dict]:
    table = read(folder, f"rejected/items-{unit:06d}.parquet")
    assert table.schema.equals(REJECTED_SCHEMA)
    return table.to_pylist()


def test_items_keep_the_order_of_the_rows(site, tmp_path):
    rows = [{"image": site.url(f"/{n}.png"), "title": f"T{n}", "language": "en"} for n in range(150)]
    (record,) = make(tmp_path, rows)
    assert record.counts == {"rows": 150, "items": 150, "rejected": 0, "duplicates": 0, "retryable": 0}
    stored = items(tmp_path)
    assert [item["source_row"] for item in stored] == list(range(150))
    assert [item["title"] for item in stored] == [f"T{n}" for n in range(150)]
    assert stored[7] == {
        "item_id": stored[7]["item_id"],
        "language": "en",
        "title": "T7",
        "text": "T7",
        "page_url": None,
        "image_url": None,
        "image": png(7),
        "width": 60,
        "height": 44,
        "source": "items.jsonl",
        "source_row": 7,
    }
    (path,) = shard_paths(tmp_path / "items")
    assert pq.ParquetFile(path).num_row_groups == 5


def test_a_image_of_many_rows_is_fetched_once(site, tmp_path):
    rows = [{"image": site.url(f"/{n % 2}.png"), "title": f"T{n}"} for n in range(60)]
    make(tmp_path, rows)
    assert site.counts == {"/0.png": 1, "/1.png": 1}
    assert [item["image"] for item in items(tmp_path)] == [png(n % 2) for n in range(60)]


def test_repeated_rows_are_dropped_before_their_image_is_fetched(site, tmp_path):
    rows = [{"image": site.url(f"/{n % 5}.png"), "title": f"T{n % 5}"} for n in range(12)]
    records = make(tmp_path, rows, limit=5)
    assert [(r.counts["items"], r.counts["duplicates"]) for r in records] == [(5, 0), (0, 5), (0, 2)]
    assert site.counts.total() == 5
    assert items(tmp_path, 1) == []


def test_rejected_rows_say_where_what_and_why(site, tmp_path):
    rows = [
        {"image": "../a.png", "title": "out"},
        {"image": site.url("/0.png"), "title": "ok"},
        {"image": "x.png"},
        {"image": site.url("/missing"), "title": "gone", "image_url": "https://example.org/gone.png"},
    ]
    (record,) = make(tmp_path, rows)
    stored = rejected(tmp_path)
    assert [(r["source_row"], r["reason"]) for r in stored] == [
        (0, "image_outside"),
        (2, "no_text"),
        (3, "fetch_http_404"),
    ]
    assert [r["image_url"] for r in stored] == ["../a.png", None, "https://example.org/gone.png"]
    assert [json.loads(r["raw"]) for r in stored] == [rows[0], rows[2], rows[3]]
    assert {r["source"] for r in stored} == {"items.jsonl"}
    assert record.counts["rejected.no_text"] == 1
    assert record.counts["retryable"] == 0


def test_only_what_failed_is_tried_again(site, tmp_path):
    site.files |= {"/a.png": png(1), "/b.png": png(2)}
    site.fails = 1
    rows = [
        {"image": site.url("/a.png"), "title": "A"},
        {"image": site.url("/shaky"), "title": "shaky"},
        {"image": site.url("/missing"), "title": "gone"},
        {"image": site.url("/b.png"), "title": "B"},
    ]
    (first,) = make(tmp_path, rows)
    assert (first.counts["items"], first.counts["retryable"]) == (2, 1)
    site.files["/shaky"] = png(3)
    (second,) = make(tmp_path, rows)
    assert site.counts == {"/a.png": 1, "/b.png": 1, "/missing": 1, "/shaky": 2}
    assert (second.counts["items"], second.counts["retryable"]) == (3, 0)
    assert [item["title"] for item in items(tmp_path)] == ["A", "shaky", "B"]
    assert second.inputs == first.inputs
    new_folder = tmp_path / "new"
    new_folder.mkdir()
    assert make(new_folder, rows)[0] == second


def test_shards_without_their_record_are_taken_over(site, tmp_path):
    """A kill between the files and the record costs no second download."""
    rows = [{"image": site.url(f"/{n}.png"), "title": f"T{n}"} for n in range(40)]
    (first,) = make(tmp_path, rows)
    for name in ("manifest.json", f"records/{first.unit}.json"):
        (tmp_path / "items" / name).unlink()
    assert make(tmp_path, rows) == [first]
    assert site.counts.total() == 40


def test_a_row_in_front_and_another_size_of_shard_cost_one_fetch(site, tmp_path):
    rows = [{"image": site.url(f"/{n}.png"), "title": f"T{n}"} for n in range(40)]
    rows[7]["image"] = site.url("/missing")
    make(tmp_path, rows, limit=10)
    assert site.counts.total() == 40
    new = {"image": site.url("/50.png"), "title": "T50"}
    moved = make(tmp_path, [new, *rows], limit=7)
    assert site.counts.total() == 41
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert make(fresh, [new, *rows], limit=7) == moved


def test_an_image_replaced_under_its_path_is_taken_on_request(tmp_path):
    rows = [{"image": f"{n}.png", "title": f"T{n}"} for n in range(3)]
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(png(n))
    first = make(tmp_path, rows)
    (tmp_path / "1.png").write_bytes(png(9))
    assert make(tmp_path, rows) == first
    assert [item["image"] for item in items(tmp_path)] == [png(0), png(1), png(2)]
    make(tmp_path, rows, recheck=True)
    assert [item["image"] for item in items(tmp_path)] == [png(0), png(9), png(2)]


def test_an_id_that_the_source_gives_says_nothing_of_the_image(site, tmp_path):
    """Another image under the id is loaded; the same one is taken over, wherever its row has moved to."""
    rows = [{"image": site.url(f"/{n}.png"), "title": f"T{n}", "item_id": f"{n + 1:024x}"} for n in range(6)]
    first = make(tmp_path, rows, limit=4)
    assert [item["item_id"] for item in items(tmp_path)] == [row["item_id"] for row in rows[:4]]
    rows[1]["image"] = site.url("/11.png")
    rows.insert(0, {"image": site.url("/12.png"), "title": "T12", "item_id": "c" * 24})
    moved = make(tmp_path, rows, limit=4)
    assert site.counts.total() == 8
    assert items(tmp_path)[2]["image"] == png(11)
    new_folder = tmp_path / "new"
    new_folder.mkdir()
    assert make(new_folder, rows, limit=4) == moved != first


def test_the_image_of_a_given_id_is_not_that_of_a_row_with_this_digest(site, tmp_path):
    """An item of a file was replaced under its id, and is back: it has its own image again."""
    row = {"image": site.url("/0.png"), "title": "T"}
    first = make(tmp_path, [row])
    (item_id,) = (item["item_id"] for item in items(tmp_path))
    make(tmp_path, [{"image": site.url("/1.png"), "title": "T", "item_id": item_id}])
    assert [(item["item_id"], item["image"]) for item in items(tmp_path)] == [(item_id, png(1))]
    assert make(tmp_path, [row]) == first
    assert items(tmp_path)[0]["image"] == png(0)


def test_of_two_rows_with_one_id_the_first_counts(site, tmp_path):
    rows = [{"image": site.url(f"/{n}.png"), "title": f"T{n}", "item_id": "a" * 24} for n in range(2)]
    (record,) = make(tmp_path, rows)
    assert (record.counts["items"], record.counts["duplicates"]) == (1, 1)
    assert make(tmp_path, [{"image": site.url("/2.png"), "title": "T2"}, *rows])[0].counts["items"] == 2
    assert [item["image"] for item in items(tmp_path)] == [png(2), png(0)]
    assert site.counts.total() == 2


def test_deleted_rows_are_counted_and_nothing_of_them_is_fetched(site, tmp_path):
    rows = [{"image": site.url(f"/{n}.png"), "title": f"T{n}"} for n in range(5)]
    first = make(tmp_path, rows, limit=3)
    assert "deleted" not in first[0].counts
    path = tmp_path / "new"
    path.mkdir()
    deleted = np.array([list(bytes.fromhex(items(tmp_path)[n]["item_id"])) for n in (0, 2)], np.uint8)
    left = make(path, rows, limit=3, deleted=deleted)
    assert left[0].counts == {"rows": 3, "items": 1, "rejected": 0, "duplicates": 0, "retryable": 0, "deleted": 2}
    assert replace(left[1], shards=[]) == replace(first[1], shards=[])
    assert [item["source_row"] for item in items(path)] == [1]
    assert (site.counts["/0.png"], site.counts["/1.png"]) == (1, 2)


def test_a_recheck_fetches_nothing_again(site, tmp_path):
    rows = [{"image": site.url(f"/{n}.png"), "title": f"T{n}"} for n in range(5)]
    first = make(tmp_path, rows)
    assert make(tmp_path, rows, recheck=True) == first
    assert site.counts.total() == 5


def test_damaged_shards_are_made_anew(site, tmp_path):
    rows = [{"image": site.url("/0.png"), "title": "T"}, {"image": "missing.png", "title": "M"}]
    (first,) = make(tmp_path, rows)
    for shard in first.shards:
        (tmp_path / "items" / shard.name).write_bytes(b"damaged")
    assert make(tmp_path, rows) == [first]


def test_a_file_that_changes_under_the_reader_is_refused(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text('{"image": "a.png", "title": "A"}\n')
    file = SourceFile("items", str(path), "jsonl", str(tmp_path))
    ((unit,),) = units([file], [scan(file, 10, tmp_path / "scan")])
    path.write_text('{"image": "a.png", "title": "B"}\n')
    (chunk,) = read_chunks(file, 10)
    maker = ImageMaker(IngestConfig.model_validate({"sources": [{"path": str(path)}]}), 1)
    with pytest.raises(ArtifactError, match="changed since it was scanned"):
        ingest_unit(file, unit, chunk.batch, StageFolder(tmp_path / "items", "ingest", {}), maker)
