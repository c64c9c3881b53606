"""Which earlier shards a task may take rows from, and what it commits. The jobs themselves: test_embed_items, ..."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from support.tiny import item_row, write_items

from comem_ray.artifacts import Shard, StageFolder, load_manifest, write_json
from comem_ray.artifacts.reuse import parquet_ids
from comem_ray.config import Config
from comem_ray.knowledge.items import item_shards
from comem_ray.knowledge.schema import REJECTED_ITEM_SCHEMA
from jobs.item_shards import RejectedItem, ShardTask, _rejections, _tasks, commit


def test_a_task_travels_as_a_row() -> None:
    shard = Shard("a.0123456789ab.parquet", 3, 10, "f" * 64)
    task = ShardTask("a", "f" * 64, shard, [shard, shard])
    assert ShardTask.of({name: [value] for name, value in task.row().items()}) == task


def test_a_task_gets_the_earlier_shards_that_hold_its_items(make_config, tmp_path: Path) -> None:
    """The stage's shards are item shards themselves here: ids are all that counts."""
    config: Config = make_config(root=str(tmp_path))
    stage = StageFolder(tmp_path / "stage", "embed_items", {})
    write_items(tmp_path / "stage-items", [10, 10])
    for unit, shard in item_shards(load_manifest(tmp_path / "stage-items", "ingest")).items():
        (stage.path / f"{unit}.parquet").write_bytes((tmp_path / "stage-items" / shard.name).read_bytes())
        stage.commit(unit, "", {f"{unit}.parquet": 10}, {"items": 10})
    write_items(config.folder("items"), [11, 8, 1, 1], first=[900])
    shards = item_shards(load_manifest(config.folder("items"), "ingest"))
    tasks = _tasks(config.folder("items"), stage, shards, parquet_ids)
    names = [[Path(shard.logical_name).stem[-1] for shard in task.earlier] for task in tasks]
    assert names == [["0"], ["1"], ["1"], ["1"]]
    assert _tasks(config.folder("items"), stage, {}, parquet_ids) == []


def test_rejected_items_are_kept_counted_and_the_first_is_named(tmp_path: Path) -> None:
    stage = StageFolder(tmp_path, "embed_items", {})
    rejected = [RejectedItem(item_row(i)["item_id"], reason, "why") for i, reason in ((4, "a"), (5, "b"), (6, "a"))]
    for unit, some in (("u", []), ("v", rejected)):
        write_json(tmp_path / f"{unit}.json", unit)
        commit(stage, ShardTask(unit, "", Shard("x", 1, 1, ""), []), f"{unit}.json", 7, some)
    manifest = stage.close(["u", "v"])
    assert manifest.counts == {"items": 14, "rejected": 3, "rejected.a": 2, "rejected.b": 1}
    assert _rejections(manifest, tmp_path) == {
        "rejected": 3,
        "rejected.a": 2,
        "rejected.b": 1,
        "first rejected": f"{rejected[0].item_id}: why",
    }
    (shard,) = manifest.shards(folder="rejected")
    table = pq.read_table(tmp_path / shard.name)
    assert table.schema.equals(REJECTED_ITEM_SCHEMA)
    assert table["item_id"].to_pylist() == [r.item_id for r in rejected]
