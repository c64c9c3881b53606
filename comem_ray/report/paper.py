"""The figures of an evaluation beside those of the paper (arXiv 2505.17670, Qwen2-VL-7B): one row per benchmark, mode.

Ours stand there twice: by the benchmark's own rule, and by the rule of the authors' scorer (tasks/rules/paper.py).
Compare the paper with the second alone: it finds answers right that are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comem_ray.evaluation.figures import ArmFigures, EvaluationFigures
from comem_ray.report.official import Figure, summary_figures

HEAD = ["benchmark", "mode", "paper, %", "by the paper's rule, %", "by its own rule, % (95% interval)", "n"]
KNOWLEDGE = 2_000_000  # WIT rows that the paper's questions are asked against
ITEMS = 10  # retrieved per question in the paper


@dataclass(frozen=True)
class PaperRow:
    """A benchmark in the paper: accuracy in percent without knowledge, with rag, with memory.

    `figure` is its column among the figures of `task`. Where `languages` is set, the questions must be of these.
    """

    title: str
    task: str
    figure: str
    scores: Mapping[str, float]
    languages: frozenset[str] = frozenset()


def _row(title: str, task: str, figure: str, none: float, rag: float, memory: float, languages: str = "") -> PaperRow:
    return PaperRow(title, task, figure, {"none": none, "rag": rag, "memory": memory}, frozenset(languages.split()))


PAPER = (
    _row("InfoSeek, unseen question", "infoseek", "val_unseen_question", 17.9, 22.7, 32.6),
    _row("InfoSeek, unseen entity", "infoseek", "val_unseen_entity", 17.8, 19.0, 33.1),
    _row("OVEN, query", "oven", "harmonic mean (query)", 25.5, 24.7, 30.5),
    _row("OVEN, entity", "oven", "harmonic mean (entity)", 9.3, 21.5, 23.6),
    _row("MRAG-Bench", "mrag", "overall", 39.3, 40.4, 35.1),
    _row("OK-VQA", "okvqa", "overall", 36.3, 41.9, 57.7),
    _row("A-OKVQA", "aokvqa", "overall", 41.8, 45.3, 60.6),
    _row("ViQuAE", "viquae", "overall", 34.5, 33.6, 36.3),
    _row("InfoSeek, five languages", "infoseek", "overall", 14.6, 12.1, 23.4, "es pt zh ru bg"),
    _row("CVQA", "cvqa", "overall", 66.1, 64.2, 67.6),
)


def beside_the_paper(figures: EvaluationFigures) -> list[list[Any]]:
    """Rows of HEAD, of the arms with as many items as the paper's, or the most; [] without a benchmark of the paper."""
    arms = _arms(figures.arms)
    return [
        [_title(row, source["official"][arm]), mode, f"{row.scores[mode]:.1f}", *cells]
        for row in PAPER
        for source in figures.sources.values()
        if source.get("task") == row.task
        for mode, arm in arms.items()
        if (cells := _cells(row, source, arm)) is not None
    ]


def conditions(figures: EvaluationFigures) -> Iterator[str]:
    """What our figures differ in from the paper's, in sentences."""
    for mode, name in _arms(figures.arms).items():
        arm = figures.arms[name]
        if mode == "none":
            continue
        yield (
            f"Mode {mode}: {arm.k} items of {arm.knowledge:,} (the paper: {ITEMS} of about {KNOWLEDGE:,}, nearest by "
            "image)."
        )


def _arms(arms: Mapping[str, ArmFigures]) -> dict[str, str]:
    """The arm of each mode that is as the paper's: no forced position, all items, 10 of them or the most."""
    largest = max((arm.knowledge for arm in arms.values()), default=0)
    chosen: dict[str, str] = {}
    for name, arm in sorted(arms.items(), key=lambda pair: (pair[1].k == ITEMS, pair[1].k)):
        if arm.gold_position is None and arm.knowledge in (0, largest):
            chosen[arm.mode] = name  # the last one wins
    return {mode: chosen[mode] for mode in ("none", "rag", "memory") if mode in chosen}


def _cells(row: PaperRow, source: Mapping[str, Any], arm: str) -> list[Any] | None:
    official = source["official"].get(arm)
    if official is None or _of_other_languages(row, official):
        return None
    figure = summary_figures(official).get(row.figure)
    if figure is None:
        return None
    by_paper = source.get("paper_rules", {}).get(arm)
    paper: Figure | None = None if by_paper is None else summary_figures(by_paper).get(row.figure)
    low, high = figure["interval"]
    own = f"{figure['score']:.1f} ({low:.1f} to {high:.1f})"
    return [None if paper is None else f"{paper['score']:.1f}", own, official["n"]]


def _title(row: PaperRow, summary: Mapping[str, Any]) -> str:
    """The paper has the mean of five languages, whose questions have the same ids: each is a source here."""
    return f"{row.title} (here: {', '.join(sorted(summary['per_language']))})" if row.languages else row.title


def _of_other_languages(row: PaperRow, summary: Mapping[str, Any]) -> bool:
    """Whether a source of InfoSeek is in English where the row's is not, or the other way round."""
    if row.task != "infoseek":
        return False
    present = set(summary.get("per_language", {})) or {"en"}
    return not present <= (row.languages or {"en"})
