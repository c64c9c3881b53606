"""A-OKVQA, direct answers: min(1, annotators who give exactly this answer / 3).

Answers are compared to the letter: no case, space or punctuation is forgiven. Questions with a difficult direct answer
are left out. File: `aokvqa_v1p0_val.json`. Multiple choice over the same file: aokvqa_mc.py.
Source: evaluation/eval_predictions.py of the A-OKVQA authors (Schwenk et al. 2022, allenai/aokvqa).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from comem_ray.config.evaluation import TaskName
from comem_ray.tasks.example import Example
from comem_ray.tasks.files import FileRow, RejectedRow, read_json, rows_of
from comem_ray.tasks.rules import paper
from comem_ray.tasks.rules.final_answer import final_answer
from comem_ray.tasks.task import Examples, ScoredAnswer, Task, TaskFiles, text_or_none


class AOkVqa(Task):
    """A gold is the list of direct answers, None where the question is left out."""

    name: TaskName = "aokvqa"
    id_field = "question_id"
    prediction_fields = ("direct_answer",)
    prediction_form = (
        'JSON of {question_id: "..."} or {question_id: {"multiple_choice": "...", "direct_answer": "..."}}'
    )

    def read(self, files: TaskFiles, language: str | None = None) -> Examples:
        """The examples; images are COCO's of 2017."""
        for path in files.paths:
            document = read_json(path)
            if not isinstance(document, list):
                raise ValueError(f"{path}: wanted a list of questions")
            make = partial(self._read_row, language=language or "en")
            yield from self._examples(rows_of(path, "question", document), make)

    def _read_row(self, row: FileRow, language: str) -> Example:
        return self._example(
            row,
            self._gold(row),
            row.get("question"),
            language=language,
            image_names=_image_names(row.get("image_id")),
        )

    def _gold(self, row: FileRow) -> Any:
        difficult = row.get("difficult_direct_answer")
        if not isinstance(difficult, bool):
            raise RejectedRow("bad_field", f"field 'difficult_direct_answer' is {difficult!r}, wanted true or false")
        return None if difficult else row.texts("direct_answers")

    def _official(self, example: Example, prediction: str) -> ScoredAnswer:
        answer = final_answer(prediction)
        return ScoredAnswer(text_or_none(answer), min(1.0, example.gold.count(answer) / 3))

    def _paper(self, example: Example, prediction: str) -> ScoredAnswer:
        return ScoredAnswer(paper.answer(prediction), float(paper.equals_one(prediction, example.gold)))


TASK = AOkVqa()


def _image_names(number: Any) -> list[str] | None:
    """COCO 2017's name of the image, in any folder of its archives; in those of 2014 it has another."""
    if isinstance(number, bool) or not isinstance(number, int):
        return None
    parts = ("val", "train", "test")
    of_2014 = [f"COCO_{part}2014_{number:012d}" for part in parts[:2]]
    return [f"{number:012d}", *(f"{part}2017/{number:012d}" for part in parts), *of_2014]
