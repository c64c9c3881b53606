"""OK-VQA: VQA accuracy, by type of question and of answer.

Files: `mscoco_val2014_annotations.json` has the answers, `OpenEnded_mscoco_val2014_questions.json` the questions.
Scoring needs the annotations alone. Which file is which is told by what it holds.
Source: vqaEval.py of the VQA authors (Antol et al. 2015, arXiv 1505.00468), which OK-VQA uses unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from comem_ray.tasks.coco import image_names
from comem_ray.tasks.example import Example
from comem_ray.tasks.files import FileRow, RejectedRow, Rows, read_json, rows_of
from comem_ray.tasks.rules import paper
from comem_ray.tasks.rules.final_answer import final_answer
from comem_ray.tasks.rules.vqa import vqa_accuracy
from comem_ray.tasks.task import Examples, ScoredAnswer, Task, TaskFiles, text_or_none

ANNOTATIONS, QUESTIONS = "annotations", "questions"
ADVICE = "name the file mscoco_..._annotations.json too"


class OkVqa(Task):
    """A gold is the list of the annotators' answers."""

    name = "okvqa"
    id_field = "question_id"
    prediction_fields = ("answer",)
    prediction_form = 'a JSON list of {"question_id": ..., "answer": "..."}'
    rule = "vqa"
    percent_first = True
    takes = ("references",)

    def read(self, files: TaskFiles, language: str | None = None) -> Examples:
        """The annotations in order, each with its question; then the questions that have none, as rejected rows."""
        documents = {path: _document(path) for path in [*files.paths, *files.references]}
        if not any(ANNOTATIONS in document for document in documents.values()):
            raise ValueError(f"{files.paths[0]}: holds no {ANNOTATIONS!r}: {ADVICE}")
        questions, rejected = dict[str, FileRow](), list[RejectedRow]()
        for row in _rows(documents, QUESTIONS):
            if isinstance(row, RejectedRow):
                rejected.append(row)
            else:
                questions[str(row.get("question_id"))] = row
        make = partial(self._read_row, questions=questions, language=language or "en")
        yield from self._examples(_rows(documents, ANNOTATIONS), make)
        for row in questions.values():
            yield RejectedRow("no_answer", "there are no answers to this question", row.place, row.get("question_id"))
        yield from rejected

    def _read_row(self, row: FileRow, questions: dict[str, FileRow], language: str) -> Example:
        """The example of an annotation, whose question is taken out of `questions`."""
        question = questions.pop(str(row.identity("question_id")), row)
        kinds = {name: row.get(name) for name in ("question_type", "answer_type")}
        return self._example(
            FileRow(question.place, row.fields),
            _answers(row),
            question.get("question"),
            language=language,
            groups={name: value for name, value in kinds.items() if isinstance(value, str)},
            image_names=image_names(row.get("image_id") if "image_id" in row.fields else question.get("image_id")),
        )

    def _official(self, example: Example, prediction: str) -> ScoredAnswer:
        answer = final_answer(prediction)
        return ScoredAnswer(text_or_none(answer), vqa_accuracy(answer, example.gold))

    def _paper(self, example: Example, prediction: str) -> ScoredAnswer:
        return ScoredAnswer(paper.answer(prediction), float(paper.equals_one(prediction, example.gold)))


TASK = OkVqa()


def _document(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if not isinstance(document, dict) or not any(
        isinstance(document.get(name), list) for name in (ANNOTATIONS, QUESTIONS)
    ):
        raise ValueError(f"{path}: holds neither a list {ANNOTATIONS!r} nor a list {QUESTIONS!r}")
    return document


def _rows(documents: Mapping[Path, dict[str, Any]], kind: str) -> Rows:
    """The rows of a list of the documents; one without an id is rejected."""
    for path, document in documents.items():
        for row in rows_of(path, kind.removesuffix("s"), document.get(kind) or []):
            if isinstance(row, FileRow) and "question_id" not in row.fields:
                yield RejectedRow("bad_field", "field 'question_id' is missing", row.place)
            else:
                yield row


def _answers(row: FileRow) -> list[str]:
    answers = row.get("answers")
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, dict) for answer in answers):
        raise RejectedRow("no_answer", "field 'answers' is not a list of objects")
    return [FileRow(row.place, answer).text("answer") for answer in answers]
