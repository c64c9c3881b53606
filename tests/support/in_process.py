"""The stages without Ray: the jobs' own actors, called one after the other in this process, in a fraction of the time.

What Ray adds (pools, readers that wait, actors that die) is tested with Ray, stage by stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import ray

from comem_ray.artifacts import StageFolder
from comem_ray.config import IngestConfig, WorkersConfig
from comem_ray.knowledge.ingest import ImageMaker, ingest_unit
from comem_ray.knowledge.sources.chunks import read_chunks
from comem_ray.knowledge.sources.files import SourceFile
from comem_ray.knowledge.sources.scan import Scan, Unit, saved_scan, scan
from jobs import build_index, ingest, item_shards


def run_in_process(patch: pytest.MonkeyPatch, cpus: float = 4) -> None:
    """Puts loops in the place of Ray Data, and free cores in that of the cluster."""
    patch.setattr(ingest, "scan_files", _scan_files)
    patch.setattr(ingest, "ingest_files", _ingest_files)
    for module in (item_shards, build_index):
        patch.setattr(module, "run_units", _run_units)
    patch.setattr(ray, "available_resources", lambda: {"CPU": cpus})


def _scan_files(files: list[SourceFile], rows: int, folder: Path, cpus: float = 1) -> list[Scan]:
    return [saved_scan(file, rows, folder) or scan(file, rows, folder) for file in files]


def _ingest_files(files: list[SourceFile], todo: list[list[Unit]], stage: StageFolder, settings: IngestConfig) -> int:
    reuse = ingest.reusable(stage, [unit for of_file in todo for unit in of_file], settings.recheck)
    maker = ImageMaker(settings, math.ceil(settings.workers.cpus))
    taken_over = 0
    for file, of_file in zip(files, todo, strict=True):
        wanted = {unit.chunk: unit for unit in of_file}
        for chunk in read_chunks(file, settings.rows_per_shard) if wanted else ():
            if unit := wanted.get(chunk.number):
                taken_over += ingest_unit(file, unit, chunk.batch, stage, maker, reuse[unit.name])
    return taken_over


def _run_units(
    units: Sequence[dict[str, Any]], worker: type, arguments: tuple[Any, ...], workers: WorkersConfig, name: str
) -> int:
    if not units:
        return 0
    actor = worker(*arguments)
    return sum(actor({name: [value] for name, value in unit.items()}) or 0 for unit in units)
