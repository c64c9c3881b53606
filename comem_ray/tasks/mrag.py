"""MRAG-Bench: multiple choice A-D, accuracy by scenario and aspect. Files: its parquet.

Source: eval/score.py of the MRAG-Bench authors (Hu et al. 2024, arXiv 2410.08182); how a letter is found:
rules/choices.py.
"""

from __future__ import annotations

from functools import partial

from comem_ray.prompts import CHOOSE_LETTER, options
from comem_ray.tasks.example import Example
from comem_ray.tasks.files import FileRow, RejectedRow, read_parquet
from comem_ray.tasks.images import image_of_row
from comem_ray.tasks.rules.choices import LETTERS, letter
from comem_ray.tasks.rules.final_answer import final_answer
from comem_ray.tasks.task import Examples, ScoredAnswer, Task, TaskFiles

COLUMNS = ("id", "aspect", "scenario", "answer_choice")
QUESTION_COLUMNS = ("question", *LETTERS)


class Mrag(Task):
    """A gold is the letter of the right choice."""

    name = "mrag"
    id_field = "id"
    prediction_ids = ("qs_id",)
    prediction_fields = ("output",)
    prediction_form = 'JSONL of {"qs_id": ..., "output": "..."}'

    def read(self, files: TaskFiles, language: str | None = None) -> Examples:
        """The examples; the image of each is in its own row."""
        for path in files.paths:
            rows = read_parquet(path, COLUMNS, QUESTION_COLUMNS)
            yield from self._examples(rows, partial(self._read_row, language=language or "en"))

    def ask(self, example: Example) -> str:
        """The question with its options, "(A) ..." to "(D) ...", whose letter is the answer."""
        if len(example.choices) != len(LETTERS):
            raise RejectedRow("bad_field", "the fields A, B, C and D do not hold four options")
        marks = [f"({one})" for one in LETTERS]
        return options(super().ask(example), list(zip(marks, example.choices, strict=True)), CHOOSE_LETTER)

    def _read_row(self, row: FileRow, language: str) -> Example:
        gold = row.text("answer_choice")
        if gold not in LETTERS or len(gold) != 1:
            raise RejectedRow("bad_field", f"answer_choice is {gold!r}, wanted A, B, C or D")
        return self._example(
            row,
            gold,
            row.get("question"),
            language=language,
            groups={name: row.text(name) for name in ("scenario", "aspect")},
            choices=[value for one in LETTERS if isinstance(value := row.get(one), str)],
            image_names=[str(row.identity("id"))],
            image_at=image_of_row(row.place.path, row.place.number),
        )

    def _official(self, example: Example, prediction: str) -> ScoredAnswer:
        choice = letter(final_answer(prediction))
        return ScoredAnswer(choice, float(choice == example.gold))

    def _paper(self, example: Example, prediction: str) -> ScoredAnswer:
        """The authors take the first character, and ask GPT where it is not a letter A-D; such an answer is wrong."""
        first = prediction.strip()[:1]
        choice = first if first and first in LETTERS else None
        return ScoredAnswer(choice, float(choice == example.gold))


TASK = Mrag()
