"""The report of a training run, `report.html`: its curves, its last figures and its configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from comem_ray.report.page import NAME, Table, write_page
from comem_ray.report.plots import Axis, Point, Series, plot
from comem_ray.training.metrics import read_metrics

CURVES = {  # title and unit
    "loss": ("Loss", "nats per token"),
    "learning_rate": ("Learning rate", ""),
    "gradient_norm": ("Gradient norm before clipping", ""),
    "samples_per_s": ("Samples", "per second"),
    "tokens_per_s": ("Tokens", "per second"),
    "tflops": ("Useful work", "TFLOP/s"),
}
_SMOOTH = 0.9  # weight of the past in the running mean that is drawn over the loss


def write_report(folder: Path, configuration: str) -> Path:
    """Writes the report of the run whose metrics are in `folder`; returns its path. `configuration` is a text."""
    rows = read_metrics(folder)
    steps = [row for row in rows if "loss" in row]
    validations = [row for row in rows if "validation" in row]
    tables = [_table("Last step", row) for row in steps[-1:]]
    tables += [_table("Last validation", {"step": row["step"], **row["validation"]}) for row in validations[-1:]]
    context = {
        "title": f"Training, {len(steps):,} steps",
        "plots": _plots(steps, validations) if steps else [],
        "tables": tables,
        "configuration": configuration,
    }
    return write_page(folder / NAME, "training.html", context)


def _plots(steps: Sequence[Mapping[str, Any]], validations: Sequence[Mapping[str, Any]]) -> list[Markup]:
    curves = [_curve(name, steps) for name in CURVES if any(row.get(name) for row in steps)]
    return curves + ([_validation(validations)] if validations else [])


def _curve(name: str, steps: Sequence[Mapping[str, Any]]) -> Markup:
    rows = [row for row in steps if row.get(name) is not None]
    numbers, values = [row["step"] for row in rows], [row[name] for row in rows]
    lines = [Series(name.replace("_", " "), "memory", _points(numbers, values))]
    if name == "loss":
        mean = _points(numbers, running_mean(values, _SMOOTH))
        lines = [Series("loss", "memory faint", _points(numbers, values)), Series("running mean", "memory", mean)]
    title, unit = CURVES[name]
    return plot(title, _steps(numbers), Axis(unit), lines)


def _validation(validations: Sequence[Mapping[str, Any]]) -> Markup:
    numbers = [row["step"] for row in validations]
    lines = [
        Series(mode, mode, _points(numbers, [row["validation"][mode] for row in validations]))
        for mode in validations[-1]["validation"]
        if mode != "n"
    ]
    return plot("Validation", _steps(numbers), Axis("right answers, %", limits=(0, 100)), lines)


def _steps(numbers: Sequence[int]) -> Axis:
    return Axis("step", limits=(0, max(numbers)))


def _points(steps: Sequence[float], values: Sequence[float]) -> list[Point]:
    return [Point(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]


def running_mean(values: Sequence[float], keep: float) -> list[float]:
    """Exponential running mean with bias correction: the first mean is the first value. `keep` weighs the past."""
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        means.append(total / weight)
    return means


def _table(caption: str, row: Mapping[str, Any]) -> Table:
    cells = [
        [name.replace("_", " "), f"{v:,.6g}" if isinstance(v, float) else f"{v:,}"]
        for name, v in row.items()
        if v is not None
    ]
    return Table(caption, [], cells)
