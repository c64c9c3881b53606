"""The official figures of the tasks as tables of a page, and a table of what could not be asked.

A summary is what `comem score` prints for one arm, as plain JSON (comem_ray.tasks.scorecard). `sources` of
EvaluationFigures has the summaries of every source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from comem_ray.evaluation.figures import EvaluationFigures
from comem_ray.report.page import Table

Figure = Mapping[str, Any]
"""{"score", "interval": [low, high]}, in percent."""
GROUPS = {"per_split": "", "per_scenario": "", "per_language": "", "per_type": "type "}
"""Groups of a summary, and what precedes a group's name in its column."""


def official_tables(figures: EvaluationFigures, arms: Sequence[str]) -> list[Table]:
    """One table per source, its arms in the order of `arms`; then one of what could not be asked, if there is any."""
    tables = [_table(name, source, arms) for name, source in figures.sources.items() if source["official"]]
    return tables + _unanswered(figures)


def summary_figures(summary: Mapping[str, Any]) -> dict[str, Figure]:
    """Every figure of a summary by the name of its column, the overall one first."""
    figures: dict[str, Figure] = {"overall": {"score": summary["overall"], "interval": summary["interval"]}}
    means = {f"harmonic mean ({name})": value for name, value in summary.get("harmonic_means", {}).items()}
    figures |= {name: value for name, value in means.items() if value is not None}
    figures |= {name: value for name, value in summary.get("metrics", {}).items() if name != "CIDEr"}  # the overall one
    figures |= {"F1": summary["f1"]} if "f1" in summary else {}
    for kind, prefix in GROUPS.items():
        groups = summary.get(kind, {})
        figures |= {f"{prefix}{name}": value for name, value in groups.items()} if len(groups) > 1 else {}
    return figures


def _table(name: str, source: Mapping[str, Any], arms: Sequence[str]) -> Table:
    summaries = {arm: source["official"][arm] for arm in arms if arm in source["official"]}
    figures = {arm: summary_figures(summary) for arm, summary in summaries.items()}
    columns = list(dict.fromkeys(column for arm_figures in figures.values() for column in arm_figures))
    rows = [
        [arm, *(_cell(figures[arm].get(c)) for c in columns), *(f"{s[c]:,}" for c in ("n", "missing", "unparsable"))]
        for arm, s in summaries.items()
    ]
    note = (
        f"Questions that the task itself does not score: {source['left_out']:,}. "
        "Intervals come from 1,000 bootstrap resamples. "
    )
    head = ["arm", *columns, "questions", "missing", "unparsable"]
    return Table(f"{name}, by its own rule", head, rows, note + " ".join(source["warnings"]))


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    low, high = figure["interval"]
    return Markup("{:.1f}<br><small>{:.0f} to {:.0f}</small>").format(figure["score"], low, high)


def _unanswered(figures: EvaluationFigures) -> list[Table]:
    images, rejected = figures.missing_images, figures.rejected
    first_images = [f"{one['data_id']} ({one['reason']})" for one in images.first]
    first_rejected = [f"{Path(one['where']).name}: {one['reason']}" for one in rejected.first]
    rows = [
        ["questions without an image, counted as wrong", f"{images.count:,}", "; ".join(first_images)],
        ["rows that hold no question, not counted", f"{rejected.count:,}", "; ".join(first_rejected)],
    ]
    rows = [row for row, faults in zip(rows, (images, rejected), strict=True) if faults.count]
    return [Table("What could not be asked", ["", "count", "the first of them"], rows)] if rows else []
