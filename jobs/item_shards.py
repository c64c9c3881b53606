"""A stage that makes one shard of every item shard: embeddings and memory.

Unchanged items are taken over by id from whatever shard held them before, so that a few new items, or a recovered
image, cost no more than themselves. An item that the stage cannot take is quarantined in `rejected/` with its reason,
and the others of its shard are made without it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.artifacts import Manifest, OpenStage, Shard, StageFolder, check_shard, write_parquet
from comem_ray.artifacts.reuse import files_holding, parquet_ids
from comem_ray.config import Config, WorkersConfig
from comem_ray.knowledge.items import STAGE as ITEMS
from comem_ray.knowledge.items import item_shards
from comem_ray.knowledge.schema import REJECTED_ITEM_SCHEMA
from jobs.common import Summary, run_units


@dataclass(frozen=True)
class RejectedItem:
    """An item that a stage could not take: a reason code and a sentence."""

    item_id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class ShardTask:
    """One unit: the item shard it is made of, and the stage's earlier shards that hold some of its items."""

    unit: str
    inputs: str
    shard: Shard
    earlier: list[Shard]

    def row(self) -> dict[str, Any]:
        """The task as a row for `run_units`."""
        return {"unit": self.unit, "task": json.dumps(asdict(self))}

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> ShardTask:
        """The task of a batch of one row."""
        data = json.loads(str(batch["task"][0]))
        return cls(data["unit"], data["inputs"], Shard(**data["shard"]), [Shard(**s) for s in data["earlier"]])


def open_items(config: Config) -> OpenStage:
    """The items of the run. Raises ArtifactError where jobs.ingest has not ended."""
    return OpenStage(config.folder("items"), ITEMS)


def run_item_shards(
    config: Config,
    items: OpenStage,
    stage: StageFolder,
    worker: type,
    workers: WorkersConfig,
    ids_of: Callable[[Path], np.ndarray],
) -> Summary:
    """Runs `worker(config, stage)` over the item shards that need it, closes the stage, and counts.

    `ids_of` reads the ids (n,) of one of the stage's shards. A worker's call returns how many items it computed.
    """
    shards = item_shards(items.manifest)
    inputs = {unit: shard.sha256 for unit, shard in shards.items()}
    kept = stage.finished(inputs)
    todo = [unit for unit in inputs if unit not in kept]
    tasks = _tasks(items.folder, stage, {unit: shards[unit] for unit in todo}, ids_of)
    computed = run_units([task.row() for task in tasks], worker, (config, stage), workers, stage.stage)
    manifest = stage.close(inputs, made_from={"items": items.manifest})
    made = sum(record.counts["items"] for record in manifest.records if record.unit not in kept)
    return {
        "items": manifest.counts.get("items", 0),
        "items computed": computed,
        "items taken over": made - computed,
        **_rejections(manifest, stage.path),
        "shards": len(inputs),
        "kept": len(kept),
        "bytes": sum(shard.bytes for shard in manifest.shards()),
    }


def _tasks(
    items: Path, stage: StageFolder, shards: Mapping[str, Shard], ids_of: Callable[[Path], np.ndarray]
) -> list[ShardTask]:
    earlier = {s.name: s for s in stage.earlier() if Path(s.name).parent == Path()} if shards else {}
    wanted = {unit: parquet_ids(items / shard.name) for unit, shard in shards.items()} if earlier else {}
    holding = files_holding(wanted, {name: ids_of(stage.path / name) for name in earlier})
    return [
        ShardTask(unit, shard.sha256, shard, [earlier[name] for name in holding.get(unit, [])])
        for unit, shard in shards.items()
    ]


def item_shard(config: Config, task: ShardTask) -> Path:
    """The path of the task's item shard, its bytes checked. Raises ArtifactError, naming the file."""
    return check_shard(config.folder("items"), task.shard, ITEMS)


def commit(stage: StageFolder, task: ShardTask, name: str, rows: int, rejected: Sequence[RejectedItem]) -> None:
    """Commits the task's shard `name`, with a shard of rejected items beside it where there are any."""
    files = {name: rows}
    if rejected:
        quarantine = f"rejected/{task.unit}.parquet"
        write_parquet(
            stage.path / quarantine, pa.Table.from_pylist([asdict(r) for r in rejected], REJECTED_ITEM_SCHEMA)
        )
        files[quarantine] = len(rejected)
    reasons = Counter(f"rejected.{r.reason}" for r in rejected)
    counts = {"rejected": len(rejected), **dict(sorted(reasons.items()))} if rejected else {}
    stage.commit(task.unit, task.inputs, files, {"items": rows, **counts})


def _rejections(manifest: Manifest, folder: Path) -> Summary:
    """Counts of rejected items by reason, and the first one by name."""
    counts = {name: n for name, n in manifest.counts.items() if name.startswith("rejected")}
    shards = manifest.shards(folder="rejected")
    if not shards:
        return {}
    first = pq.read_table(folder / shards[0].name).to_pylist()[0]
    return {**dict(sorted(counts.items())), "first rejected": f"{first['item_id']}: {first['detail']}"}
