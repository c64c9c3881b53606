"""Knowledge base: the rows of WIT files, wit_base parquet or JSONL become numbered shards of knowledge items.

    ray job submit --working-dir . -- python -m jobs.ingest --config configs/demo.yaml

Two passes. The scan streams every file once, one task per file. It cuts the file into units and finds rows that repeat
earlier ones. Then one reader per file streams the unfinished units to a pool of workers. These fetch and normalise the
images and commit the units. Ray Data holds the readers back when the workers are behind, so memory stays bounded.

What was added, replaced or deleted while the service ran (live/, if jobs.compact exported it) comes last: a source
like the others, and rows of the others that are left out.

A rerun keeps the finished units, and takes over what earlier runs made of the rows of others. With ingest.retry_failed
it tries again the rows that may succeed now, and only these. With ingest.recheck it reads images that are local files
again. The result is the same after any number of kills.
"""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from comem_ray.artifacts import ArtifactError, Manifest, Record, StageFolder
from comem_ray.artifacts.reuse import files_holding, hex_ids, parquet_ids
from comem_ray.config import Config, ConfigError, IngestConfig
from comem_ray.knowledge.ingest import ImageMaker, Reuse, ingest_unit, rejected_file
from comem_ray.knowledge.sources import clip_retrieval
from comem_ray.knowledge.sources.chunks import RULES, from_bytes, read_chunks, to_bytes
from comem_ray.knowledge.sources.files import SourceFile, source_files
from comem_ray.knowledge.sources.live import live_source, refuse_damaged
from comem_ray.knowledge.sources.scan import NONE_DELETED, Scan, Unit, saved_scan, scan, units
from jobs.common import Summary, drain, main
from jobs.console import Progress
from jobs.refusals import COLUMN, raise_refusal, refusal_of, returns_refusals, to_text

STAGE = "ingest"


def run(config: Config) -> Summary:
    """Makes the items of `config`. Raises ConfigError where a source names no file, ArtifactError for another make."""
    ingest = config.ingest
    files = source_files(ingest.sources)
    refuse_other_clip(files, config)
    live = live_source(config.folder("live"), files)
    files += [live.file] if live and live.file else []
    identity = {"rules": RULES, "rows_per_shard": ingest.rows_per_shard, "images": ingest.images.model_dump()}
    stage = StageFolder(config.folder("items"), STAGE, identity, versions=("rules", "rows_per_shard"))
    cpus = min(1, ingest.workers.cpus)
    scans = scan_files(files, ingest.rows_per_shard, stage.path / "scan", cpus)
    if live and live.file:
        refuse_damaged(live.file, scans[-1])
    plan = units(files, scans, live.deleted if live else NONE_DELETED)
    inputs = {unit.name: unit.inputs for of_file in plan for unit in of_file}
    finished = {} if ingest.recheck else stage.finished(inputs)
    added = [unit.name for file, of_file in zip(files, plan, strict=True) if file.live for unit in of_file]
    kept = {n for n, record in finished.items() if not _worth_retrying(record, ingest) and not _lost(record, added)}
    todo = [[unit for unit in of_file if unit.name not in kept] for of_file in plan]
    taken_over = ingest_files(files, todo, stage, ingest)
    _refuse_lost(stage, added)
    extra = {"sources": [file.name for file in files], **({"live": live.seq} if live else {})}
    manifest = stage.close(inputs, extra)
    return _summary(manifest, kept, taken_over, ingest.recheck)


def refuse_other_clip(files: list[SourceFile], config: Config) -> None:
    """Raises ConfigError where a source brings embeddings of another CLIP model than the run's."""
    ready = [file for file in files if file.format == "clip_retrieval"]
    if ready:
        from comem_ray.retrieval.clip import locate  # torch, which no other source needs

        clip_retrieval.refuse_other_clip(ready, config.clip, locate(config.clip).architecture["embed_dim"])


def scan_files(files: list[SourceFile], rows: int, folder: Path, cpus: float = 1) -> list[Scan]:
    """Scans on the cluster the files that have no valid scan in `folder` yet, then reads what the tasks saved there.

    A task reserves `cpus` cores.
    """

    def task(row: dict[str, Any]) -> dict[str, Any]:
        return {COLUMN: refusal_of(lambda: scan(pickle.loads(row["file"]), rows, folder))}

    scans = [saved_scan(file, rows, folder) for file in files]
    items = [{"file": pickle.dumps(file)} for file, saved in zip(files, scans, strict=True) if saved is None]
    if items:
        dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(task, num_cpus=cpus)
        dataset.set_name("scan")
        drain(dataset, Progress(f"{STAGE}, scan", len(items), "files", lines=1))
    # A file that could not be read to its end has no lasting scan: here it is read once more.
    return [saved_scan(file, rows, folder) or scan(file, rows, folder) for file in files]


def ingest_files(files: list[SourceFile], todo: list[list[Unit]], stage: StageFolder, ingest: IngestConfig) -> int:
    """Makes the units of `todo`, which holds a list of units for each file. Returns how many rows were taken over."""
    reuse = reusable(stage, [unit for of_file in todo for unit in of_file], ingest.recheck)
    plans = [[(unit, reuse[unit.name]) for unit in of_file] for of_file in todo]
    items = [{"job": pickle.dumps((file, plan))} for file, plan in zip(files, plans, strict=True) if plan]
    if not items:
        return 0
    count = sum(map(len, todo))

    def read(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        try:
            file, plan = pickle.loads(row["job"])
            yield from _read_units(file, plan, ingest.rows_per_shard)
        except (ConfigError, ArtifactError) as error:
            yield _unit_row(refusal=to_text(error))

    dataset: ray.data.Dataset = ray.data.from_items(items, override_num_blocks=len(items))
    dataset.context.target_max_block_size = 1  # bytes: each unit is a block of its own, for any worker to take
    # Readers reserve no core: the workers may hold all of them for the length of the job.
    dataset = dataset.flat_map(
        read, num_cpus=0, compute=ray.data.TaskPoolStrategy(size=min(len(items), ingest.workers.count))
    )
    dataset = dataset.map_batches(
        returns_refusals(IngestUnit),
        batch_size=1,
        batch_format="pyarrow",
        fn_constructor_args=(stage, ingest),
        compute=ray.data.ActorPoolStrategy(size=min(ingest.workers.count, count)),
        num_cpus=ingest.workers.cpus,
    )
    dataset.set_name(STAGE)
    return drain(dataset, Progress(STAGE, count))


def reusable(stage: StageFolder, units: list[Unit], recheck: bool) -> dict[str, Reuse]:
    """For each unit the shards of earlier runs that hold one of its rows, made an item or rejected."""
    shards = {s.name: s for s in stage.earlier()} if units else {}
    ids = {name: parquet_ids(stage.path / name) for name in shards}
    names = files_holding({unit.name: hex_ids(unit.identities) for unit in units}, ids)
    return {unit: Reuse([shards[name] for name in holding], recheck) for unit, holding in names.items()}


def _read_units(file: SourceFile, plan: list[tuple[Unit, Reuse]], rows: int) -> Iterator[dict[str, Any]]:
    """A row for each unit of `plan` that the file still has; stops reading after the last one."""
    wanted = {unit.chunk: (file, unit, reuse) for unit, reuse in plan}
    for chunk in read_chunks(file, rows):
        if chunk.number in wanted:
            yield _unit_row(pickle.dumps(wanted.pop(chunk.number)), to_bytes(chunk.batch))
        if not wanted:
            return


def _unit_row(job: bytes = b"", payload: bytes = b"", refusal: str = "") -> dict[str, Any]:
    return {"job": job, "payload": payload, COLUMN: refusal}


class IngestUnit:
    """An actor: makes one unit per call."""

    def __init__(self, stage: StageFolder, ingest: IngestConfig):
        self._stage, self._maker = stage, ImageMaker(ingest, decoders=math.ceil(ingest.workers.cpus))

    def __call__(self, batch: pa.Table) -> int:
        raise_refusal(batch[COLUMN][0].as_py())
        file, unit, reuse = pickle.loads(batch["job"][0].as_py())
        return ingest_unit(file, unit, from_bytes(batch["payload"][0].as_buffer()), self._stage, self._maker, reuse)


def _worth_retrying(record: Record, ingest: IngestConfig) -> bool:
    """Whether some rows of a finished unit may succeed under the present configuration."""
    hopeless = 0 if ingest.fetch.enabled else record.counts.get("rejected.fetch_disabled", 0)
    hopeless += 0 if ingest.fetch.allow_private else record.counts.get("rejected.fetch_private", 0)
    return ingest.retry_failed and record.counts["retryable"] > hopeless


def _lost(record: Record, added: list[str]) -> bool:
    """Whether a unit of the live source lacks an item."""
    return record.unit in added and record.counts["rejected"] > 0


def _refuse_lost(stage: StageFolder, added: list[str]) -> None:
    """Raises ArtifactError where an item of the units `added`, those of the live source, could not be made again."""
    for record in stage.records():
        if _lost(record, added):
            shard = record.shard(rejected_file(record.unit))
            assert shard is not None
            first = pq.read_table(stage.path / shard.name).to_pylist()[0]
            raise ArtifactError(
                f"{record.counts['rejected']} items that were added while the service ran cannot be read, the first is "
                f"{first['item_id']} ({first['image_url']}: {first['detail']}). Copy the folder live/ from a backup, "
                "then run again: what is served is as it was"
            )


def _summary(manifest: Manifest, kept: set[str], taken_over: int, recheck: bool) -> Summary:
    counts = Counter(manifest.counts)  # a run without any row has no counts
    assert counts["rows"] == counts["items"] + counts["rejected"] + counts["duplicates"] + counts["deleted"]
    reasons = {name: counts[name] for name in sorted(counts) if name.startswith("rejected.")}
    kept_rows = sum(r.counts["items"] + r.counts["rejected"] for r in manifest.records if r.unit in kept)
    unchanged = kept_rows + taken_over
    note = "images that are local files were read again" if recheck else "--set ingest.recheck=true reads it again"
    return {
        "rows": counts["rows"],
        "items": counts["items"],
        "rejected": counts["rejected"],
        **reasons,
        "duplicates": counts["duplicates"],
        **({"deleted": counts["deleted"]} if "live" in manifest.extra else {}),
        "retryable": counts["retryable"],
        "shards": len(manifest.records),
        "shards made now": len(manifest.records) - len(kept),
        "rows taken as unchanged": unchanged,
        **({"unchanged means": f"the row is the same, its image was not looked at ({note})"} if unchanged else {}),
        "bytes": sum(shard.bytes for shard in manifest.shards()),
    }


if __name__ == "__main__":
    main(STAGE, run, __doc__)
