"""Knowledge base: the rows of WIT files, wit_base parquet or JSONL become numbered shards of knowledge items.

    ray job submit --working-dir . -- python -m jobs.ingest --config configs/demo.yaml

Two passes. The scan streams every file once, one task per file. It cuts the file into units and finds rows that repeat
earlier ones. Then one reader per file streams the unfinished units to a pool of workers. These fetch and normalise the
images and commit the units. Ray Data holds the readers back when the workers are behind, so memory stays bounded.

A rerun keeps the finished units. With ingest.retry_failed it tries again the rows that may succeed now, and only these.
The result is the same after any number of kills.
"""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.data

from comem_ray.artifacts import ArtifactError, Manifest, Record, StageFolder
from comem_ray.config import Config, ConfigError, IngestConfig
from comem_ray.knowledge.ingest import ImageMaker, ingest_unit
from comem_ray.knowledge.sources.chunks import RULES, from_bytes, read_chunks, to_bytes
from comem_ray.knowledge.sources.files import SourceFile, source_files
from comem_ray.knowledge.sources.scan import Scan, Unit, saved_scan, scan, units
from jobs.common import Summary, drain, main
from jobs.console import Progress
from jobs.refusals import COLUMN, raise_refusal, refusal_of, returns_refusals, to_text

STAGE = "ingest"


def run(config: Config) -> Summary:
    """Makes the items of `config`. Raises ConfigError where a source names no file, ArtifactError for another make."""
    ingest = config.ingest
    files = source_files(ingest.sources)
    identity = {"rules": RULES, "rows_per_shard": ingest.rows_per_shard, "images": ingest.images.model_dump()}
    stage = StageFolder(config.folder("items"), STAGE, identity)
    plan = units(files, scan_files(files, ingest.rows_per_shard, stage.path / "scan"))
    inputs = {unit.name: unit.inputs for of_file in plan for unit in of_file}
    kept = {name for name, record in stage.finished(inputs).items() if not _worth_retrying(record, ingest)}
    todo = [[unit for unit in of_file if unit.name not in kept] for of_file in plan]
    ingest_files(files, todo, stage, ingest)
    manifest = stage.close(inputs, {"sources": [file.name for file in files]})
    return _summary(manifest, done=sum(len(of_file) for of_file in todo))


def scan_files(files: list[SourceFile], rows: int, folder: Path) -> list[Scan]:
    """Scans on the cluster the files that have no valid scan in `folder` yet, then reads what the tasks saved there."""

    def task(row: dict[str, Any]) -> dict[str, Any]:
        return {COLUMN: refusal_of(lambda: scan(pickle.loads(row["file"]), rows, folder))}

    scans = [saved_scan(file, rows, folder) for file in files]
    items = [{"file": pickle.dumps(file)} for file, saved in zip(files, scans, strict=True) if saved is None]
    if items:
        dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(task, num_cpus=1)
        dataset.set_name("scan")
        drain(dataset, Progress(f"{STAGE}, scan", len(items), "files", lines=1))
    # A file that could not be read to its end has no lasting scan: here it is read once more.
    return [saved_scan(file, rows, folder) or scan(file, rows, folder) for file in files]


def ingest_files(files: list[SourceFile], todo: list[list[Unit]], stage: StageFolder, ingest: IngestConfig) -> None:
    """Makes the units of `todo`, which holds a list of units for each file."""
    items = [{"job": pickle.dumps((file, missing))} for file, missing in zip(files, todo, strict=True) if missing]
    if not items:
        return
    count = sum(map(len, todo))

    def read(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        try:
            file, units = pickle.loads(row["job"])
            yield from _read_units(file, units, ingest.rows_per_shard)
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
    drain(dataset, Progress(STAGE, count))


def _read_units(file: SourceFile, units: list[Unit], rows: int) -> Iterator[dict[str, Any]]:
    """A row for each of `units` that the file still has; stops reading after the last one."""
    wanted = {unit.chunk: unit for unit in units}
    for chunk in read_chunks(file, rows):
        if chunk.number in wanted:
            yield _unit_row(pickle.dumps((file, wanted.pop(chunk.number))), to_bytes(chunk.batch))
        if not wanted:
            return


def _unit_row(job: bytes = b"", payload: bytes = b"", refusal: str = "") -> dict[str, Any]:
    return {"job": job, "payload": payload, COLUMN: refusal}


class IngestUnit:
    """An actor: makes one unit per call."""

    def __init__(self, stage: StageFolder, ingest: IngestConfig):
        self._stage, self._maker = stage, ImageMaker(ingest, decoders=math.ceil(ingest.workers.cpus))

    def __call__(self, batch: pa.Table) -> None:
        raise_refusal(batch[COLUMN][0].as_py())
        file, unit = pickle.loads(batch["job"][0].as_py())
        ingest_unit(file, unit, from_bytes(batch["payload"][0].as_buffer()), self._stage, self._maker)


def _worth_retrying(record: Record, ingest: IngestConfig) -> bool:
    """Whether some rows of a finished unit may succeed under the present configuration."""
    hopeless = 0 if ingest.fetch.enabled else record.counts.get("rejected.fetch_disabled", 0)
    hopeless += 0 if ingest.fetch.allow_private else record.counts.get("rejected.fetch_private", 0)
    return ingest.retry_failed and record.counts["retryable"] > hopeless


def _summary(manifest: Manifest, done: int) -> Summary:
    counts = Counter(manifest.counts)  # a run without any row has no counts
    assert counts["rows"] == counts["items"] + counts["rejected"] + counts["duplicates"]
    reasons = {name: counts[name] for name in sorted(counts) if name.startswith("rejected.")}
    shards = manifest.shards()
    return {
        "rows": counts["rows"],
        "items": counts["items"],
        "rejected": counts["rejected"],
        **reasons,
        "duplicates": counts["duplicates"],
        "retryable": counts["retryable"],
        "shards": len(manifest.records),
        "shards made now": done,
        "bytes": sum(shard.bytes for shard in shards),
    }


if __name__ == "__main__":
    main(STAGE, run, __doc__)
