"""The official figures of published tasks: what `comem score` says of an evaluation's predictions, arm by arm.

A question without an answer (its image is not there, its prompt too long) is a missing prediction: wrong. Arms with a
forced gold position are scored on the questions that they can be asked with. Knows nothing of models or files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from comem_ray.config import ConfigError, EvaluationSourceConfig, resolve
from comem_ray.evaluation.sources import SourceQuestions
from comem_ray.tasks import load_task
from comem_ray.tasks.example import OFFICIAL, Example
from comem_ray.tasks.rules.final_answer import final_answer
from comem_ray.tasks.rules.scoring import OwnRules, score
from comem_ray.tasks.rules.titles import TitleIndex, read_titles
from comem_ray.tasks.scorecard import score_predictions
from comem_ray.tasks.task import Scoring

FIRST = 10  # ids and reasons that a report names


def score_alone(example: Example, text: str, own_rules: OwnRules) -> float | None:
    """The score of one answer by the example's rule, 0..1; None where its task scores answers together."""
    if example.rule != OFFICIAL:
        return score(example.rule, final_answer(text), example.gold, own_rules)
    task = load_task(example.task)
    return None if task.scored_together else task.score([example], [text])[0].score


def score_sources(
    settings: Sequence[EvaluationSourceConfig], sources: Sequence[SourceQuestions], rows: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The official figures of every source, by its name; writes `score` into the rows of their questions.

    {"task", "official": {arm: summary}, "paper_rules": the same by the rules of the paper's authors where they have
    some, "warnings", and what `row_counts` says}. Raises ConfigError for titles of OVEN
    that cannot be read.
    """
    figures = {}
    for config, source in zip(settings, sources, strict=True):
        summaries, by_paper, warnings = dict[str, Any](), dict[str, Any](), list[str]()
        task = load_task(source.task)
        if task.official:
            titles = _titles(config)
            if task.has_paper_rules:
                by_paper, _ = score_arms(source, [dict(row) for row in rows], Scoring("paper", titles))  # of copies
            summaries, warnings = score_arms(source, rows, Scoring(titles=titles))
        own = {"task": source.task, "official": summaries, "paper_rules": by_paper, "warnings": warnings}
        figures[source.label] = {**own, **row_counts([source], rows)}
    return figures


def score_arms(
    source: SourceQuestions, rows: Iterable[dict[str, Any]], scoring: Scoring
) -> tuple[dict[str, Any], list[str]]:
    """The official summary of every arm, and warnings; writes `score` into the rows, which may be of any source."""
    task, examples = load_task(source.task), {example.data_id: example for example in source.questions}
    arms: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["data_id"] in examples:
            arms[row["arm"]].append(row)
    summaries, warnings = {}, dict[str, None]()
    for arm, arm_rows in arms.items():
        arm_examples = [examples[row["data_id"]] for row in arm_rows]
        predictions = {
            str(example.own_id): (example.own_id, row["prediction"])
            for example, row in zip(arm_examples, arm_rows, strict=True)
            if not row["fault"]
        }
        card = score_predictions(task, arm_examples, predictions, scoring)
        for row, scored in zip(arm_rows, card.rows, strict=True):
            row["score"] = scored["score"]
        summaries[arm] = card.summary
        warnings |= dict.fromkeys(card.warnings)
    return summaries, list(warnings)


def row_counts(sources: Sequence[SourceQuestions], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What became of the rows of the files: {"questions", "left_out", "missing_images", "rejected"}."""
    ids = {example.data_id for source in sources for example in source.questions}
    rejected = [row for source in sources for row in source.rejected]
    return {
        "questions": len(ids),
        "left_out": sum(source.left_out for source in sources),
        "missing_images": missing_images([row for row in rows if row["data_id"] in ids]),
        "rejected": {"count": len(rejected), "first": rejected[:FIRST]},
    }


def missing_images(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{"count", "first"} of the questions that were not asked for want of an image, with the reasons."""
    faults = {row["data_id"]: row["fault"] for row in rows if str(row["fault"]).startswith("image_")}
    first = [{"data_id": data_id, "reason": reason} for data_id, reason in list(faults.items())[:FIRST]]
    return {"count": len(faults), "first": first}


def _titles(source: EvaluationSourceConfig) -> TitleIndex | None:
    try:
        if source.titles is None:
            return None
        vocabulary = None if source.vocabulary is None else resolve(source.vocabulary)
        return TitleIndex(read_titles(resolve(source.titles)), vocabulary)
    except ValueError as error:
        raise ConfigError(f"evaluation.sources: {source.label}: {error}") from error
