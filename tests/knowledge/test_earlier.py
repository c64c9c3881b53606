"""What earlier runs made of a row is found by its id, in whatever shard it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tiny import item_row, shard_paths, write_items

from comem_ray.artifacts import Shard, StageFolder, load_manifest, write_parquet
from comem_ray.knowledge.earlier import EarlierItems, made_by_rules
from comem_ray.knowledge.images import StoredImage
from comem_ray.knowledge.schema import REJECTED_SCHEMA
from comem_ray.knowledge.sources.rows import RowFault


def rejected_row(item_id: str | None, reason: str, retryable: bool) -> dict[str, Any]:
    fields = {"source": "a.tsv", "source_row": 0, "detail": f"it was {reason}", "image_url": None, "raw": b""}
    return {**fields, "item_id": item_id, "reason": reason, "retryable": retryable}


def shards(folder: Path) -> list[Shard]:
    return load_manifest(folder, "ingest").shards()


def test_images_come_by_id_from_any_shard_and_row_group(tmp_path: Path) -> None:
    write_items(tmp_path, [70, 3])
    earlier = EarlierItems(tmp_path, "ingest", shards(tmp_path))
    for i in (0, 69, 33, 72, 31, 70):
        row = item_row(i)
        assert earlier.outcome(row["item_id"]) == StoredImage(row["image"], row["width"], row["height"])
    assert earlier.outcome("0" * 24) is None


def test_final_rejections_stand_and_the_others_are_tried_again(tmp_path: Path) -> None:
    rows = [
        rejected_row("a" * 24, "fetch_http_404", False),
        rejected_row("b" * 24, "fetch_http_403", True),
        rejected_row(None, "no_text", False),
    ]
    stage = StageFolder(tmp_path, "ingest", {})
    write_parquet(tmp_path / "rejected" / "u.parquet", pa.Table.from_pylist(rows, made_by_rules(REJECTED_SCHEMA)))
    stage.commit("u", "", {"rejected/u.parquet": 3}, {})
    stage.close(["u"])
    earlier = EarlierItems(tmp_path, "ingest", shards(tmp_path))
    assert earlier.outcome("a" * 24) == RowFault("fetch_http_404", "it was fetch_http_404")
    assert earlier.outcome("b" * 24) is None


def test_what_other_rules_made_is_made_again(tmp_path: Path) -> None:
    """An image that version 0.2 stored black, a 403 that it took for final: they must not live on."""
    write_items(tmp_path, [5])
    (path,) = shard_paths(tmp_path)
    for metadata in (None, {b"comem.rules": b"1"}):
        table = pq.read_table(path).replace_schema_metadata(metadata)
        stage = StageFolder(tmp_path / str(metadata is None), "ingest", {})
        write_parquet(stage.path / "u.parquet", table)
        stage.commit("u", "", {"u.parquet": 5}, {})
        assert EarlierItems(stage.path, "ingest", stage.earlier()).outcome(item_row(0)["item_id"]) is None


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_shard_has_no_rows(tmp_path: Path, damage: str) -> None:
    write_items(tmp_path, [5, 4])
    first = shard_paths(tmp_path)[0]
    data = bytearray(first.read_bytes())
    data[300] ^= 1
    first.unlink()
    if damage != "gone":
        first.write_bytes(data if damage == "flip" else data[:-1])
    earlier = EarlierItems(tmp_path, "ingest", shards(tmp_path))
    assert earlier.outcome(item_row(0)["item_id"]) is None
    assert earlier.outcome(item_row(5)["item_id"]) is not None
