"""The plots of an evaluation: accuracy against k, against what stands before the question, against the knowledge base.

A colour a mode. Arms with a forced place are only in the plot of cost, hollow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from comem_ray.prompts import MODES
from comem_ray.report.plots import Axis, Point, Series, plot
from comem_ray.report.tables import Arms, knowledge, retrieved, span

Arm = Mapping[str, Any]

_RIGHT = Axis("right answers, %", limits=(0, 100))
_WIDE = 6  # times the least cost from which on the axis of costs is logarithmic


def charts(arms: Arms) -> list[Markup]:
    """The plots that these arms have points for."""
    shown = retrieved(arms)
    found = [_against_k(shown)] if any(arm["k"] for arm in shown) else []
    return [*found, _against_cost(arms), *_against_knowledge(arms)]


def _against_k(arms: Sequence[Arm]) -> Markup:
    ks = sorted({arm["k"] for arm in arms if arm["k"]})
    axis = Axis("items before the question (k)", log=len(ks) > 1, ticks=ks)
    return plot("Accuracy by number of items", axis, _RIGHT, _by_mode(arms, "k"))


def _against_knowledge(arms: Arms) -> list[Markup]:
    """A plot a k, where there are several sizes of the knowledge base."""
    some = [arm for arm in arms.values() if arm["gold_position"] is None]
    sizes = sorted({knowledge(arm) for arm in some if knowledge(arm)})
    if len(sizes) < 2:
        return []
    axis = Axis("items in the knowledge base", log=True, ticks=sizes)
    ks = sorted({arm["k"] for arm in some if arm["k"]})
    return [
        plot(f"Accuracy by size of the knowledge base, k={k}", axis, _RIGHT, _by_mode(with_k, "knowledge"))
        for k in ks
        if (with_k := [arm for arm in some if arm["mode"] == "none" or arm["k"] == k])
    ]


def _by_mode(arms: Sequence[Arm], field: str) -> list[Series]:
    """A line a mode over `field`; `none` has neither k nor knowledge and is a level."""
    series = []
    for mode in MODES:
        of_mode = [arm for arm in arms if arm["mode"] == mode and (mode == "none" or arm.get(field))]
        if mode == "none":
            series += [Series(mode, mode, [_point(arm, 0, mode) for arm in of_mode], "level")] if of_mode else []
        elif of_mode:
            of_mode.sort(key=lambda arm: arm[field])
            name = "k={:,}" if field == "k" else "{:,} items"
            series.append(Series(mode, mode, [_point(arm, arm[field], name.format(arm[field])) for arm in of_mode]))
    return series


def _against_cost(arms: Arms) -> Markup:
    costs = [_cost(arm) for arm in arms.values()]
    axis = Axis("prompt tokens + memory vectors", log=max(costs) > _WIDE * max(1, min(costs)))
    series = []
    for mode in MODES:
        plain = [_point(a, _cost(a), _named(a), _named(a)) for a in retrieved(arms) if a["mode"] == mode]
        placed = [
            _point(a, _cost(a), name)
            for name, a in arms.items()
            if a["mode"] == mode and a["gold_position"] is not None
        ]
        series += [Series(mode, mode, plain, "points")] if plain else []
        series += [Series(f"{mode}, right item at a place", mode, placed, "hollow")] if placed else []
    return plot("Accuracy by what stands before the question", axis, _RIGHT, series)


def _named(arm: Arm) -> str:
    return "" if arm["mode"] == "none" else f"k={arm['k']}"


def _cost(arm: Arm) -> float:
    return arm["prompt_tokens"] + arm["memory_vectors"]


def _point(arm: Arm, x: float, name: str, label: str = "") -> Point:
    said = f"{name or arm['mode']}: {arm['score']:.1f}% ({span(arm)})"
    return Point(x, arm["score"], arm["low"], arm["high"], label, said)
