"""OK-VQA: VQA accuracy, by type of question and of answer.

References: `mscoco_val2014_annotations.json`; the file of questions may stand beside it and is not needed.
Source: vqaEval.py of the VQA authors (Antol et al. 2015, arXiv 1505.00468), which OK-VQA uses unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from comem_ray.tasks.records import (
    Asked,
    Question,
    Row,
    Rules,
    Verdict,
    identity,
    judged,
    loaded,
    read_json,
    said,
    text_field,
)
from comem_ray.tasks.rules import paper
from comem_ray.tasks.rules.scoring import boxed
from comem_ray.tasks.rules.vqa import vqa_accuracy


def load(paths: Sequence[Path]) -> list[Question]:
    """The questions of `paths`; a gold is the list of the annotators' answers."""
    return loaded(_annotations(paths, [_document(path) for path in paths]), question)


def rows(paths: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    """The annotations, each with its `question` from the file of questions; a question without one is a fault."""
    documents = [_document(path) for path in paths]
    texts: dict[Any, Any] = {}
    for path, document in zip(paths, documents, strict=True):
        for number, row in enumerate(document.get("questions", []), start=1):
            if isinstance(row, dict) and "question_id" in row:
                texts[str(row["question_id"])] = row.get("question")
            else:
                where = f"{path}, question {number}"
                yield where, ValueError(f"{where}: {str(row)[:80]!r}, wanted an object with 'question_id'")
    for where, row in _annotations(paths, documents):
        yield (
            where,
            row if isinstance(row, ValueError) else {**row, "question": texts.pop(str(row["question_id"]), None)},
        )
    for question_id in texts:
        yield f"question {question_id}", ValueError(f"question {question_id}: there are no answers to it")


def question(where: str, row: dict[str, Any]) -> Question:
    """The question of an annotation; a gold is the list of the annotators' answers."""
    groups = {name: text_field(where, row, name) for name in ("question_type", "answer_type")}
    return Question(identity(where, row, "question_id"), _answers(where, row), groups)


def asked(where: str, row: dict[str, Any]) -> Asked:
    """The bare question."""
    return Asked(text_field(where, row, "question"), image_names(where, row))


def image_names(where: str, row: dict[str, Any], splits: Sequence[str] = ("val2014", "train2014")) -> list[str]:
    """COCO 2014's name of the image of `image_id`, in any folder of its archives."""
    number = row.get("image_id")
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError(f"{where}: field 'image_id' is {number!r}, wanted a whole number")
    stems = [(split, f"COCO_{split}_{number:012d}") for split in splits]
    return [*(stem for _, stem in stems), *(f"{split}/{stem}" for split, stem in stems)]


def score(questions: Sequence[Question], answers: Sequence[str | None], rules: Rules) -> list[Verdict]:
    """The verdict on every answer."""
    return judged(_official if rules == "official" else _paper, questions, answers)


def _document(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if not isinstance(document, dict) or not ("annotations" in document or "questions" in document):
        raise ValueError(f"{path}: no 'annotations', wanted the benchmark's file of annotations")
    return document


def _annotations(paths: Sequence[Path], documents: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Row]]:
    for path, document in zip(paths, documents, strict=True):
        for number, row in enumerate(document.get("annotations", []), start=1):
            where = f"{path}, annotation {number}"
            fault = ValueError(f"{where}: {str(row)[:80]!r}, wanted an object with 'question_id'")
            yield where, row if isinstance(row, dict) and "question_id" in row else fault


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
