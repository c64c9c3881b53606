"""The figures of a run, step by step: `metrics.jsonl`, TensorBoard files in the same folder, and a line in the log.

A line of metrics.jsonl is the report of a step, or of a validation (with the key "validation"). Steps that are repeated
after a kill replace the earlier ones, so the file is that of an uninterrupted run.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

log = logging.getLogger(__name__)

NAME = "metrics.jsonl"


class MetricsLog:
    """Appends figures to `folder`. Those of steps after `done` are removed first: these steps will be repeated."""

    def __init__(self, folder: Path, done: int):
        folder.mkdir(parents=True, exist_ok=True)
        kept = "".join(json.dumps(row) + "\n" for row in read_metrics(folder) if row["step"] <= done)
        self._path = folder / NAME
        building = self._path.with_suffix(".tmp")
        building.write_text(kept, encoding="utf-8")
        os.replace(building, self._path)
        # TensorBoard itself hides the steps that a restarted run repeats.
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def step(self, figures: Mapping[str, float | int | None]) -> None:
        """Adds the figures of a step; `figures["step"]` is its number, from 1."""
        self._write(figures, figures)
        text = ", ".join(f"{k} {_short(v)}" for k, v in figures.items() if k not in ("step", "steps") and v is not None)
        log.info("step %s of %s: %s", figures["step"], figures["steps"], text)

    def validation(self, step: int, figures: Mapping[str, float]) -> None:
        """Adds a validation after `step` steps."""
        self._write({"step": step, "validation": dict(figures)}, {f"validation/{k}": v for k, v in figures.items()})
        log.info("step %d: validation %s", step, ", ".join(f"{k} {_short(v)}" for k, v in figures.items()))

    def _write(self, row: Mapping[str, Any], scalars: Mapping[str, float | int | None]) -> None:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in scalars.items():
            if name not in ("step", "steps") and value is not None:
                self._board.add_scalar(name, value, row["step"])
        self._board.flush()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; none without the file. A last line that a kill cut short is left out."""
    path = folder / NAME
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _short(value: float | int) -> str:
    return str(value) if isinstance(value, int) or not math.isfinite(value) else f"{value:.4g}"
