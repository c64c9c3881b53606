"""Scores a file of predictions against a benchmark's references: what `comem score` prints.

Every question of the references counts: one without a prediction is wrong and `missing`. `unparsable` counts the
predictions in which the rule finds no answer, `unmatched` those for no question of the references, `left_out` the
questions that the benchmark itself does not score. Figures are percent, with 95% intervals (summary.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comem_ray.tasks import aokvqa, coco, cvqa, infoseek, mrag, okvqa, oven, viquae
from comem_ray.tasks.bootstrap import BOOTSTRAP, group_summaries, groups_of, mean_of
from comem_ray.tasks.records import Question, Rules, Verdict, read_predictions
from comem_ray.tasks.rules import paper
from comem_ray.tasks.rules.titles import TitleIndex, read_titles

LOAD: dict[str, Callable[[Sequence[Path]], list[Question]]] = {
    "infoseek": infoseek.load,
    "oven": oven.load,
    "mrag": mrag.load,
    "okvqa": okvqa.load,
    "aokvqa": aokvqa.load,
    "aokvqa-mc": aokvqa.load_choices,
    "viquae": viquae.load,
    "cvqa": cvqa.load,
    "coco": coco.load,
}
SCORE: dict[str, Callable[[Sequence[Question], Sequence[str | None], Rules], list[Verdict]]] = {
    "infoseek": infoseek.score,
    "mrag": mrag.score,
    "okvqa": okvqa.score,
    "aokvqa": aokvqa.score,
    "aokvqa-mc": aokvqa.score_choices,
    "viquae": viquae.score,
    "cvqa": cvqa.score,
    "coco": coco.score,
}
FINALS = {"infoseek": infoseek.finals, "oven": oven.finals, "viquae": viquae.finals, "coco": coco.finals}
PERCENT_FIRST = ("okvqa", "viquae")  # 100 * sum / n in their scripts, sum / n * 100 in the others
BENCHMARKS = tuple(LOAD)


@dataclass(frozen=True)
class Scorecard:
    """The summary, a row for every question that counts, and what a reader of the figures must know."""

    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    warnings: list[str]


def scorecard(
    benchmark: str,
    references: Sequence[Path],
    predictions: Path,
    question_types: Path | None = None,
    titles: Path | None = None,
    rules: Rules = "official",
) -> Scorecard:
    """The figures of `predictions`. ValueError names the file, the line and the fault of anything that is no input."""
    _check(benchmark, question_types, titles, rules)
    loaded = infoseek.load(references, question_types) if benchmark == "infoseek" else LOAD[benchmark](references)
    pairs = None if titles is None else read_titles(titles)
    return card(benchmark, loaded, read_predictions(predictions), pairs, rules)


def card(
    benchmark: str,
    loaded: Sequence[Question],
    found: Mapping[str, tuple[str | int, str]],
    titles: Iterable[tuple[str, str]] | TitleIndex | None = None,
    rules: Rules = "official",
) -> Scorecard:
    """As `scorecard`, of questions and predictions (id -> id as it stands, text) that are read already."""
    questions = [question for question in loaded if question.gold is not None]
    if not questions:
        raise ValueError("the references hold no question that counts")
    given = [found.get(str(question.data_id)) for question in questions]
    answers = [None if one is None else one[1] for one in given]
    if benchmark == "oven":
        verdicts = oven.score(questions, answers, rules, oven.titles_of(questions) if titles is None else titles)
    else:
        verdicts = SCORE[benchmark](questions, answers, rules)
    known = {str(question.data_id) for question in loaded}
    summary = {
        "benchmark": benchmark,
        "rules": rules,
        "n": len(questions),
        "missing": answers.count(None),
        "unparsable": sum(v.parsed is None and a is not None for v, a in zip(verdicts, answers, strict=True)),
        "unmatched": sum(data_id not in known for data_id in found),
        "left_out": len(loaded) - len(questions),
        **_figures(benchmark, questions, verdicts),
        "bootstrap": BOOTSTRAP,
    }
    rows = [_row(*row) for row in zip(questions, given, verdicts, strict=True)]
    return Scorecard(summary, rows, _warnings(benchmark, titles is None, rules))


def _check(benchmark: str, question_types: Path | None, titles: Path | None, rules: str) -> None:
    if benchmark not in LOAD:
        raise ValueError(f"there is no benchmark {benchmark!r}, want one of {', '.join(BENCHMARKS)}")
    if rules not in ("official", "paper"):
        raise ValueError(f"there are no rules {rules!r}, want official or paper")
    if question_types is not None and benchmark != "infoseek":
        raise ValueError(f"question types are InfoSeek's, not {benchmark}'s")
    if titles is not None and benchmark != "oven":
        raise ValueError(f"titles are OVEN's, not {benchmark}'s")


def _figures(benchmark: str, questions: Sequence[Question], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    percent_first = benchmark in PERCENT_FIRST
    overall = mean_of([verdict.score for verdict in verdicts], "overall", percent_first).summary()
    groups = groups_of((question.groups, verdict.score) for question, verdict in zip(questions, verdicts, strict=True))
    finals = FINALS[benchmark](questions, verdicts) if benchmark in FINALS else {}
    return {
        "overall": overall["score"],
        "interval": overall["interval"],
        **finals,
        **group_summaries(groups, percent_first),
    }


def _row(question: Question, given: tuple[str | int, str] | None, verdict: Verdict) -> dict[str, Any]:
    data_id, prediction = (question.data_id, None) if given is None else given
    beside = {name: value for name, value in verdict.beside.items() if isinstance(value, str | float)}
    return {"data_id": data_id, "prediction": prediction, "parsed": verdict.parsed, "score": verdict.score, **beside}


def _warnings(benchmark: str, untitled: bool, rules: str) -> list[str]:
    without_titles = [oven.WARNING] if benchmark == "oven" and untitled else []
    return ([paper.WARNING] if rules == "paper" else []) + without_titles
