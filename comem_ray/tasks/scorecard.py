"""Scores a file of predictions against a task's references: what `comem score` prints.

Every question of the references counts: one without a prediction is wrong and `missing`. `unparsable` counts the
predictions in which the rule finds no answer, `unmatched` those for no question of the references, `left_out` the
questions that the task itself does not score. Figures are percent, with 95% intervals (bootstrap.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from comem_ray.tasks import load_task
from comem_ray.tasks.bootstrap import BOOTSTRAP
from comem_ray.tasks.example import Example
from comem_ray.tasks.files import RejectedRow
from comem_ray.tasks.predictions import PredictionFile, Predictions, read_predictions
from comem_ray.tasks.rules.scoring import NO_RULES, OwnRules
from comem_ray.tasks.rules.titles import TitleIndex, read_titles
from comem_ray.tasks.task import OFFICIAL_SCORING, ScoredAnswer, Scoring, Task, TaskFiles


@dataclass(frozen=True)
class Scorecard:
    """The summary, a row for every question that counts, and what a reader of the figures must know."""

    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    warnings: list[str]


def scorecard(
    name: str,
    files: TaskFiles,
    predictions: Path,
    rules: Literal["official", "paper"] = "official",
    own_rules: OwnRules = NO_RULES,
) -> Scorecard:
    """The figures of a file of predictions for the task called `name`, whose references are `files`.

    ValueError names the file, the line and the fault of anything that cannot be used.
    """
    if rules not in ("official", "paper"):
        raise ValueError(f"there are no rules {rules!r}, want official or paper")
    task = load_task(name)
    task.check_files(files)
    examples = read_all(task, replace(files, titles=None))  # the titles of the examples' own entities are not needed
    titles = None if files.titles is None else TitleIndex(read_titles(files.titles), files.vocabulary)
    file = read_predictions(predictions, task)
    card = score_predictions(task, examples, file.predictions, Scoring(rules, titles, own_rules))
    return replace(card, warnings=[*card.warnings, *file.warnings(), *_foreign(card, file)])


def read_all(task: Task, files: TaskFiles) -> list[Example]:
    """All examples. ValueError for the first rejected row, for an id that comes twice, or where there is none."""
    examples: dict[str, Example] = {}
    for example in task.read(files):
        if isinstance(example, RejectedRow):
            raise example
        if example.data_id in examples:
            raise ValueError(f"{example.place}: a second question with id {example.own_id!r}")
        examples[example.data_id] = example
    if not examples:
        raise ValueError("the reference files hold no question")
    return list(examples.values())


def score_predictions(
    task: Task, examples: Sequence[Example], predictions: Predictions, scoring: Scoring = OFFICIAL_SCORING
) -> Scorecard:
    """As `scorecard`, of examples and predictions that are read already."""
    counted = [example for example in examples if example.gold is not None]
    if not counted:
        raise ValueError("the references hold no question that counts")
    given = [predictions.get(str(example.own_id)) for example in counted]
    answers = [None if one is None else one[1] for one in given]
    scored = task.score(counted, answers, scoring)
    summary = {
        "task": task.name,
        "rules": scoring.rules,
        "n": len(counted),
        **_counts(answers, scored),
        "unmatched": _unmatched(examples, predictions),
        "left_out": len(examples) - len(counted),
        **task.aggregate(counted, scored),
        "bootstrap": BOOTSTRAP,
    }
    rows = [_row(*row) for row in zip(counted, given, scored, strict=True)]
    return Scorecard(summary, rows, task.warnings(scoring))


def _counts(answers: Sequence[str | None], scored: Sequence[ScoredAnswer]) -> dict[str, int]:
    unparsable = (one.parsed is None and text is not None for one, text in zip(scored, answers, strict=True))
    return {"missing": sum(text is None for text in answers), "unparsable": sum(unparsable)}


def _unmatched(examples: Iterable[Example], predictions: Predictions) -> int:
    known = {str(example.own_id) for example in examples}
    return sum(data_id not in known for data_id in predictions)


def _foreign(card: Scorecard, file: PredictionFile) -> list[str]:
    """A warning where no prediction is for a question of the references."""
    if not file.predictions or card.summary["unmatched"] < len(file.predictions):
        return []
    first, question = next(iter(file.predictions.values()))[0], card.rows[0]["data_id"]
    return [f"{file.path}: no id is one of the references: the first is {first!r}, theirs is {question!r}"]


def _row(example: Example, given: tuple[str | int, str] | None, answer: ScoredAnswer) -> dict[str, Any]:
    data_id, prediction = (example.own_id, None) if given is None else given
    metrics = {name: value for name, value in answer.metrics.items() if isinstance(value, str | float)}
    return {"data_id": data_id, "prediction": prediction, "parsed": answer.parsed, "score": answer.score, **metrics}
