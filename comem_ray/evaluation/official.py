"""The official figures of published benchmarks: what `comem score` says of an evaluation's predictions, arm by arm.

A question without an answer (its image is not there, its prompt too long) is a missing prediction: wrong. Arms with a
forced place are judged on the questions that they can be asked with. Knows nothing of models or files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from comem_ray.config import ConfigError, EvaluationSourceConfig, resolve
from comem_ray.evaluation.questions import EvaluationQuestion
from comem_ray.evaluation.sources import SourceQuestions
from comem_ray.tasks.records import Question
from comem_ray.tasks.rules.scoring import OwnRules, final_answer, score
from comem_ray.tasks.rules.titles import TitleIndex, read_titles
from comem_ray.tasks.scorecard import LOAD, SCORE, card

TOGETHER = ("oven", "coco")  # their rules judge an answer among all titles, or all captions
FIRST = 10  # ids and reasons that a report shows


def score_alone(question: EvaluationQuestion, text: str, own_rules: OwnRules) -> float | None:
    """The score of one answer by the question's rule, 0..1; None where its benchmark judges answers together."""
    if question.rule != "official":
        return score(question.rule, final_answer(text), question.gold, own_rules)
    if question.benchmark in TOGETHER:
        return None
    return SCORE[question.benchmark]([_asked(question)], [text], "official")[0].score


def judge_all(
    settings: Sequence[EvaluationSourceConfig], sources: Sequence[SourceQuestions], rows: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The official figures of every source, by its name; writes `score` into the rows of their questions.

    {"benchmark", "official": {arm: summary}, "warnings", and what `fates` says}. Raises ConfigError for titles of OVEN
    that cannot be read.
    """
    found = {}
    for wanted, source in zip(settings, sources, strict=True):
        summaries, warnings = dict[str, Any](), list[str]()
        if source.benchmark in LOAD:
            summaries, warnings = judge(source, rows, _titles(wanted))
        said = {"benchmark": source.benchmark, "official": summaries, "warnings": warnings}
        found[source.label] = {**said, **fates([source], rows)}
    return found


def _titles(source: EvaluationSourceConfig) -> TitleIndex | None:
    try:
        return None if source.titles is None else TitleIndex(read_titles(resolve(source.titles)))
    except ValueError as error:
        raise ConfigError(f"evaluation.sources: {source.label}: {error}") from error


def judge(
    source: SourceQuestions, rows: Iterable[dict[str, Any]], titles: TitleIndex | None
) -> tuple[dict[str, Any], list[str]]:
    """The official summary of every arm, and warnings; writes `score` into the rows, which may be of any source."""
    questions = {q.data_id: q for q in source.questions}
    arms: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["data_id"] in questions:
            arms[row["arm"]].append(row)
    summaries, warnings = {}, dict[str, None]()
    for arm, some in arms.items():
        asked = [questions[row["data_id"]] for row in some]
        said = {str(q.own_id): (q.own_id, r["prediction"]) for q, r in zip(asked, some, strict=True) if not r["fault"]}
        found = card(source.benchmark, [_asked(q) for q in asked], said, titles)
        for row, judged in zip(some, found.rows, strict=True):
            row["score"] = judged["score"]
        summaries[arm] = found.summary
        warnings |= dict.fromkeys(found.warnings)
    return summaries, list(warnings)


def fates(sources: Sequence[SourceQuestions], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What became of the rows of the files: {"questions", "left_out", "missing_images", "rejected"}."""
    ids = {q.data_id for s in sources for q in s.questions}
    rejected = [row for s in sources for row in s.rejected]
    return {
        "questions": len(ids),
        "left_out": sum(s.left_out for s in sources),
        "missing_images": missing_images([row for row in rows if row["data_id"] in ids]),
        "rejected": {"count": len(rejected), "first": rejected[:FIRST]},
    }


def missing_images(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{"count", "first"} of the questions that were not asked for want of an image, with the reasons."""
    faults = {row["data_id"]: row["fault"] for row in rows if str(row["fault"]).startswith("image_")}
    first = [{"data_id": data_id, "reason": reason} for data_id, reason in list(faults.items())[:FIRST]]
    return {"count": len(faults), "first": first}


def markdown(sources: Mapping[str, Any]) -> str:
    """A table for every source with an official rule, and the rows of the files that were not asked."""
    lines = []
    for name, found in sources.items():
        lines += [f"### {name}", "", _fates_in_words(found), ""]
        if found["official"]:
            lines += ["| arm | overall (95% interval) | n | missing | unparsable | also |", "|---|---|---|---|---|---|"]
            lines += [_line(arm, summary) for arm, summary in found["official"].items()]
            lines += ["", *found["warnings"], ""] if found["warnings"] else [""]
    return "\n".join(lines)


def _fates_in_words(found: Mapping[str, Any]) -> str:
    images, rejected = found["missing_images"], found["rejected"]
    said = [f"questions: {found['questions']}; left out by the benchmark itself: {found['left_out']}"]
    if images["count"]:
        said.append(f"without an image, counted as wrong: {images['count']} (first {images['first'][0]['data_id']})")
    if rejected["count"]:
        said.append(f"rejected rows: {rejected['count']} (first: {rejected['first'][0]['reason']})")
    return "; ".join(said) + "."


def _line(arm: str, summary: Mapping[str, Any]) -> str:
    low, high = summary["interval"]
    also = {f"harmonic mean ({k})": v for k, v in summary.get("harmonic_means", {}).items() if v}
    also |= {k: v for k, v in summary.get("metrics", {}).items() if k != "CIDEr"}
    also |= {"F1": summary["f1"]} if "f1" in summary else {}
    for kind in ("split", "scenario", "language"):
        parts = summary.get(f"per_{kind}", {})
        also |= parts if len(parts) > 1 else {}
    said = ", ".join(f"{name} {value['score']:.1f}" for name, value in also.items())
    cells = f"{summary['overall']:.1f} ({low:.1f} to {high:.1f}) | {summary['n']} | {summary['missing']}"
    return f"| {arm} | {cells} | {summary['unparsable']} | {said} |"


def _asked(question: EvaluationQuestion) -> Question:
    return Question(question.own_id, question.gold, question.groups)
