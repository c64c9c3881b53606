"""OK-VQA: VQA accuracy, by type of question and of answer.

References: `mscoco_val2014_annotations.json`; the file of questions may stand beside it and is not needed.
Source: vqaEval.py of the VQA authors (Antol et al. 2015, arXiv 1505.00468), which OK-VQA uses unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from comem_ray.evaluation import paper
from comem_ray.evaluation.records import (
    Question,
    Rules,
    Verdict,
    identity,
    judged,
    read_json,
    said,
    text_field,
    unique,
)
from comem_ray.evaluation.scoring import boxed
from comem_ray.evaluation.vqa_text import vqa_accuracy


def load(paths: Sequence[Path]) -> list[Question]:
    """The questions of `paths`; a gold is the list of the annotators' answers."""
    return unique(question for path in paths for question in _questions(path))


def score(questions: Sequence[Question], answers: Sequence[str | None], rules: Rules) -> list[Verdict]:
    """The verdict on every answer."""
    return judged(_official if rules == "official" else _paper, questions, answers)


def _questions(path: Path) -> Iterator[tuple[str, Question]]:
    document = read_json(path)
    if not isinstance(document, dict) or not ("annotations" in document or "questions" in document):
        raise ValueError(f"{path}: no 'annotations', wanted the benchmark's file of annotations")
    for number, row in enumerate(document.get("annotations", []), start=1):
        where = f"{path}, annotation {number}"
        groups = {name: text_field(where, row, name) for name in ("question_type", "answer_type")}
        yield where, Question(identity(where, row, "question_id"), _answers(where, row), groups)


def _answers(where: str, row: dict[str, Any]) -> list[str]:
    given = row.get("answers")
    if not isinstance(given, list) or not given or not all(isinstance(one, dict) for one in given):
        raise ValueError(f"{where}: field 'answers' is no list of objects")
    return [text_field(where, one, "answer") for one in given]


def _official(question: Question, prediction: str) -> Verdict:
    inside = boxed(prediction)
    answer = prediction if inside is None else inside
    return Verdict(said(answer), vqa_accuracy(answer, question.gold))


def _paper(question: Question, prediction: str) -> Verdict:
    return Verdict(paper.answer(prediction), float(paper.equals_one(prediction, question.gold)))
