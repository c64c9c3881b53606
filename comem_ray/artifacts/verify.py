"""Whether what a run has on disk is what its stages wrote: files against their digests, stages against each other.

Reads all bytes. Changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from comem_ray.artifacts.manifest import ArtifactError, Manifest, Record, check_made_from, damage, read_manifest
from comem_ray.artifacts.stage import CHECKERS


@dataclass(frozen=True)
class StageReport:
    """A stage folder: what it holds, and what is wrong with it, one sentence per fault."""

    folder: Path
    stage: str
    generation: str
    files: int
    bytes: int
    faults: list[str]


def verify(root: Path) -> Iterator[StageReport]:
    """A report on every stage folder below `root`, in the order of their names.

    Raises ArtifactError where there is none.
    """
    folders = sorted({path.parent for name in ("stage.json", "manifest.json") for path in root.glob(f"*/{name}")})
    if not folders:
        raise ArtifactError(f"{root} holds no stage: name the root of a run, the folder with items/, index/, memory/")
    for folder in folders:
        try:
            manifest = read_manifest(folder)
        except ArtifactError as error:
            yield StageReport(folder, "", "", 0, 0, [str(error)])
            continue
        shards = manifest.shards()
        faults = [
            *_shard_faults(folder, manifest),
            *_record_faults(folder, manifest),
            *_origin_faults(folder, manifest),
        ]
        yield StageReport(
            folder, manifest.stage, manifest.generation, len(shards), sum(s.bytes for s in shards), faults
        )


def _shard_faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    shards = manifest.shards()
    with ThreadPoolExecutor(CHECKERS) as threads:
        for shard, fault in zip(shards, threads.map(lambda s: damage(folder, s), shards), strict=True):
            if fault:
                yield f"{folder / shard.name} {fault}. Run the stage '{manifest.stage}' again: it makes this file again"


def _record_faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    again = f"Run the stage '{manifest.stage}' again: it makes this unit again"
    try:
        stored = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
        if stored != {"stage": manifest.stage, "identity": manifest.identity}:
            yield f"{folder / 'stage.json'} is of another configuration than the manifest"
    except (OSError, ValueError) as error:
        yield f"{folder / 'stage.json'} is damaged ({error!r}). Delete it and run the stage '{manifest.stage}' again"
    for record in manifest.records:
        path = folder / "records" / f"{record.unit}.json"
        try:
            same = asdict(Record.of(json.loads(path.read_text(encoding="utf-8")))) == asdict(record)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            yield f"{path} is missing or damaged ({error!r}). {again}"
            continue
        if not same:
            yield f"{path} is not what the manifest says: a run has begun and not ended. {again}"


def _origin_faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    for source in manifest.made_from:
        try:
            check_made_from(**{folder.name: manifest, source: read_manifest(folder.parent / source)})
        except ArtifactError as error:
            yield str(error)
