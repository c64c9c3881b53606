"""A stage of four units, each a function of its inputs: what a job is to StageFolder, without Ray."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from comem_ray.artifacts import StageFolder, fingerprint, write_parquet

IDENTITY = {"model": "tiny", "width": 4}


def rows_of(unit: str, inputs: str) -> pa.Table:
    """What this little stage makes of a unit: a function of the unit and its inputs, as in every real stage."""
    return pa.table({"unit": [unit] * 3, "digest": [fingerprint([unit, inputs, i]) for i in range(3)]})


def work(stage: StageFolder, inputs: Mapping[str, str]) -> list[str]:
    """Does every unit that is not finished, as a job does. Returns the units it did."""
    todo = [unit for unit in inputs if unit not in stage.finished(inputs)]
    for unit in todo:
        table = rows_of(unit, inputs[unit])
        write_parquet(stage.path / f"{unit}.parquet", table)
        stage.commit(unit, inputs[unit], {f"{unit}.parquet": table.num_rows}, {"items": table.num_rows})
    return todo


def begin(path: Path, identity: Mapping[str, Any] = IDENTITY) -> StageFolder:
    return StageFolder(path, "items", identity)


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


INPUTS = {f"part-0000-{i:06d}": f"digest{i}" for i in range(4)}
