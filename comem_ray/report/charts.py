"""The plots of an evaluation: accuracy by number of items, by length of the prompt, by size of the knowledge base.

Each mode has its colour. Arms with a gold position are in the plot of prompt lengths alone, as hollow points.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from comem_ray.evaluation.figures import ArmFigures
from comem_ray.prompts import MODES
from comem_ray.report.plots import Axis, Point, Series, plot
from comem_ray.report.tables import Arms, format_interval, searching_most

ACCURACY = Axis("right answers, %", limits=(0, 100))
WIDE = 6  # ratio of the longest prompt to the shortest above which their axis is logarithmic


def charts(arms: Arms) -> list[Markup]:
    """The plots that these arms have points for."""
    main = searching_most(arms)
    by_k = [_by_number_of_items(main)] if any(arm.k for arm in main) else []
    return [*by_k, _by_length(arms), *_by_knowledge(arms)]


def _by_number_of_items(arms: Sequence[ArmFigures]) -> Markup:
    ks = sorted({arm.k for arm in arms if arm.k})
    axis = Axis("items in the prompt (k)", log=len(ks) > 1, ticks=ks)
    series = [_line(mode, [(arm.k, f"k={arm.k:,}", arm) for arm in arms if arm.mode == mode]) for mode in MODES]
    return plot("Accuracy by number of items", axis, ACCURACY, [line for line in series if line.points])


def _by_knowledge(arms: Arms) -> list[Markup]:
    """One plot per k, if there are several sizes of the knowledge base."""
    as_retrieved = [arm for arm in arms.values() if arm.gold_position is None]
    sizes = sorted({arm.knowledge for arm in as_retrieved if arm.knowledge})
    ks = sorted({arm.k for arm in as_retrieved if arm.k})
    return [_by_knowledge_at(k, as_retrieved, sizes) for k in ks] if len(sizes) > 1 else []


def _by_knowledge_at(k: int, arms: Sequence[ArmFigures], sizes: Sequence[int]) -> Markup:
    axis = Axis("items in the knowledge base", log=True, ticks=sizes)
    some = [arm for arm in arms if arm.mode == "none" or arm.k == k]
    series = [
        _line(mode, [(arm.knowledge, f"{arm.knowledge:,} items", arm) for arm in some if arm.mode == mode])
        for mode in MODES
    ]
    title = f"Accuracy by size of the knowledge base, k={k}"
    return plot(title, axis, ACCURACY, [line for line in series if line.points])


def _line(mode: str, arms: Sequence[tuple[int, str, ArmFigures]]) -> Series:
    """A line over (x, name, arm). Mode none has neither k nor knowledge: it is a level."""
    if mode == "none":
        return Series(mode, mode, [_point(arm, 0, mode) for _, _, arm in arms], "level")
    ordered = sorted(arms, key=lambda entry: entry[0])
    return Series(mode, mode, [_point(arm, x, name) for x, name, arm in ordered])


def _by_length(arms: Arms) -> Markup:
    lengths = [_length(arm) for arm in arms.values()]
    axis = Axis("prompt tokens + memory vectors", log=max(lengths) > WIDE * max(1, min(lengths)))
    series = []
    for mode in MODES:
        plain = [_point(a, _length(a), _label(a), _label(a)) for a in searching_most(arms) if a.mode == mode]
        placed = [
            _point(a, _length(a), name) for name, a in arms.items() if a.mode == mode and a.gold_position is not None
        ]
        series += [Series(mode, mode, plain, "points")] if plain else []
        series += [Series(f"{mode}, right item at a position", mode, placed, "hollow")] if placed else []
    return plot("Accuracy by length of the prompt", axis, ACCURACY, series)


def _label(arm: ArmFigures) -> str:
    return "" if arm.mode == "none" else f"k={arm.k}"


def _length(arm: ArmFigures) -> float:
    return arm.prompt_tokens + arm.memory_vectors


def _point(arm: ArmFigures, x: float, name: str, label: str = "") -> Point:
    share = arm.share
    description = f"{name or arm.mode}: {share.score:.1f}% ({format_interval(share)})"
    return Point(x, share.score, share.low, share.high, label, description)
