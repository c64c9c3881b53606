"""The official figures of published benchmarks as tables of a page, and what could not be asked.

Takes `sources`, `missing_images` and `rejected` of a report.json, as comem_ray.evaluation.official has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from comem_ray.report.page import Table

OWN = {"sources", "missing_images", "rejected"}
_PARTS = {"per_split": "", "per_scenario": "", "per_language": "", "per_type": "type "}  # and how a column is called


def official_tables(found: Mapping[str, Any], arms: Sequence[str]) -> list[Table]:
    """A table a benchmark, its arms in the order of `arms`; then one of what could not be asked, where there is any."""
    sources = found.get("sources") or {}
    tables = [_table(name, source, arms) for name, source in sources.items() if source["official"]]
    return tables + _unasked(found)


def _table(name: str, source: Mapping[str, Any], arms: Sequence[str]) -> Table:
    summaries = {arm: source["official"][arm] for arm in arms if arm in source["official"]}
    shown = {arm: _figures(summary) for arm, summary in summaries.items()}
    columns = list(dict.fromkeys(column for figures in shown.values() for column in figures))
    rows = [
        [arm, *(_cell(shown[arm].get(c)) for c in columns), *(f"{s[c]:,}" for c in ("n", "missing", "unparsable"))]
        for arm, s in summaries.items()
    ]
    note = f"Left out by the benchmark itself: {source['left_out']:,}. Intervals are of 1,000 bootstrap resamples. "
    head = ["arm", *columns, "questions", "missing", "unparsable"]
    return Table(f"{name}, by its own rule", head, rows, note + " ".join(source["warnings"]))


def _figures(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any] | None]:
    """Each figure of a summary by the name of its column."""
    figures: dict[str, Mapping[str, Any] | None] = {
        "overall": {"score": summary["overall"], "interval": summary["interval"]}
    }
    figures |= {f"harmonic mean, {name}": value for name, value in summary.get("harmonic_means", {}).items()}
    figures |= {name: value for name, value in summary.get("metrics", {}).items() if name != "CIDEr"}  # the overall one
    figures |= {"F1": summary["f1"]} if "f1" in summary else {}
    for kind, said in _PARTS.items():
        parts = summary.get(kind, {})
        figures |= {f"{said}{name}": value for name, value in parts.items()} if len(parts) > 1 else {}
    return figures


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return ""
    low, high = figure["interval"]
    return Markup("{:.1f}<br><small>{:.0f} to {:.0f}</small>").format(figure["score"], low, high)


def _unasked(found: Mapping[str, Any]) -> list[Table]:
    images, rejected = (found.get(name) or {"count": 0, "first": []} for name in ("missing_images", "rejected"))
    first = [f"{one['data_id']} ({one['reason']})" for one in images["first"]]
    rows = [["without an image, counted as wrong", f"{images['count']:,}", "; ".join(first)]]
    first = [f"{Path(one['where']).name}: {one['reason']}" for one in rejected["first"]]
    rows.append(["rows of the files that are no question", f"{rejected['count']:,}", "; ".join(first)])
    rows = [row for row in rows if row[1] != "0"]
    return [Table("What could not be asked", ["", "count", "the first"], rows)] if rows else []
