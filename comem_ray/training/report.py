"""The report of a run: `report.html` with its curves, one file that opens offline."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from comem_ray.artifacts import write_atomic
from comem_ray.training.metrics import read_metrics

NAME = "report.html"
CURVES = {
    "loss": "loss (nats a token)",
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm before clipping",
    "samples_per_s": "samples/s",
    "tokens_per_s": "tokens/s",
    "tflops": "TFLOP/s, useful",
}
_SMOOTH = 0.9  # of the running mean that is drawn over the loss


def write_report(folder: Path, configuration: str) -> Path:
    """Writes the report of the run whose metrics.jsonl is in `folder`; `configuration` is shown as it is."""
    rows = read_metrics(folder)
    steps = [r for r in rows if "loss" in r]
    checks = [r for r in rows if "validation" in r]
    page = _PAGE.format(
        title=html.escape(f"Training, {len(steps)} steps"),
        last=_table(steps[-1]) if steps else "",
        curves=_svg(_curves(steps, checks)) if steps else "<p>no step was taken</p>",
        checks="".join(_table({"step": r["step"], **r["validation"]}) for r in checks[-1:]),
        configuration=html.escape(configuration),
    )
    path = folder / NAME
    write_atomic(path, lambda p: p.write_text(page, encoding="utf-8") and None)
    return path


def _curves(steps: Sequence[Mapping[str, Any]], checks: Sequence[Mapping[str, Any]]) -> Figure:
    shown = [name for name in CURVES if any(row.get(name) for row in steps)]
    figure = Figure(figsize=(11, 3 * ((len(shown) + bool(checks) + 1) // 2)), layout="constrained")
    axes = figure.subplots((len(shown) + bool(checks) + 1) // 2, 2, squeeze=False).flatten()
    numbers = [row["step"] for row in steps]
    for axis, name in zip(axes, shown, strict=False):
        values = [row[name] for row in steps]
        axis.plot(numbers, values, linewidth=0.8, alpha=0.5 if name == "loss" else 1)
        if name == "loss":
            axis.plot(numbers, running_mean(values, _SMOOTH), linewidth=1.5)
        axis.set_title(CURVES[name], fontsize=10)
    if checks:
        axis = axes[len(shown)]
        for mode in (k for k in checks[-1]["validation"] if k != "n"):
            axis.plot([r["step"] for r in checks], [r["validation"][mode] for r in checks], marker="o", label=mode)
        axis.set_title("validation, % right", fontsize=10)
        axis.legend()
    for axis in axes[len(shown) + bool(checks) :]:
        axis.set_axis_off()
    return figure


def running_mean(values: Sequence[float], keep: float) -> list[float]:
    """Exponential running mean, corrected for its start: the first value is itself."""
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        means.append(total / weight)
    return means


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg")
    return out.getvalue()[out.getvalue().index("<svg") :]


def _table(row: Mapping[str, Any]) -> str:
    cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{v}</td></tr>" for k, v in row.items() if v is not None)
    return f"<table>{cells}</table>"


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 sans-serif;max-width:72em;margin:2em auto;padding:0 1em}}svg{{max-width:100%;height:auto}}
th{{text-align:left;padding-right:2em;font-weight:normal}}pre{{background:#f4f4f4;padding:1em;overflow:auto}}</style>
<h1>{title}</h1>{curves}<h2>Last step</h2>{last}<h2>Last validation</h2>{checks}
<h2>Configuration</h2><pre>{configuration}</pre></html>
"""
