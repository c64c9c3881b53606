"""CVQA: the number of the option, 1 to 4, accuracy by language and country. Files: its parquet.

Its authors publish no scorer; the rule is the accuracy of the option. Questions whose label is hidden (-1) are left
out. The answer is the boxed number, else the one number that the text chooses (rules/choices.py).
Source: Romero et al. 2024 (arXiv 2406.05967); numbered options: cvqa_eval.py of the paper's authors.
"""

from __future__ import annotations

import ast
from functools import partial

from comem_ray.prompts import CHOOSE_NUMBER, options
from comem_ray.tasks.example import Example
from comem_ray.tasks.files import FileRow, RejectedRow, read_parquet
from comem_ray.tasks.images import image_of_row
from comem_ray.tasks.rules import paper
from comem_ray.tasks.rules.choices import number
from comem_ray.tasks.rules.final_answer import final_answer
from comem_ray.tasks.task import Examples, ScoredAnswer, Task, TaskFiles

COLUMNS = ("ID", "Subset", "Label", "Category")
QUESTION_COLUMNS = ("Question", "Translated Question", "Options", "Translated Options")
HIDDEN = -1


class Cvqa(Task):
    """A gold is the number of the right option, "1" to "4"."""

    name = "cvqa"
    id_field = "ID"
    question_field = "Question"

    def read(self, files: TaskFiles, language: str | None = None) -> Examples:
        """The examples, in their own languages, or in English for the language "en"; images are in their own rows."""
        for path in files.paths:
            rows = read_parquet(path, COLUMNS, QUESTION_COLUMNS)
            yield from self._examples(rows, partial(self._read_row, language=language))

    def ask(self, example: Example) -> str:
        """The question with its options, "1." to "4."; the number is the answer."""
        if not example.choices:
            raise RejectedRow("bad_field", "field 'Options' is not a list of strings")
        numbered = [(f"{n}.", text) for n, text in enumerate(example.choices, start=1)]
        return options(super().ask(example), numbered, CHOOSE_NUMBER)

    def _read_row(self, row: FileRow, language: str | None) -> Example:
        label, subset = row.get("Label"), row.text("Subset")
        if label not in (HIDDEN, 0, 1, 2, 3):
            raise RejectedRow("bad_field", f"Label is {label!r}, wanted 0 to 3, or -1 where it is hidden")
        prefix = "Translated " if language == "en" else ""
        choices = row.get(f"{prefix}Options")
        return self._example(
            row,
            None if label == HIDDEN else str(label + 1),
            row.get(f"{prefix}Question"),
            language=language or _language(subset),
            groups={"language": _language(subset), "subset": subset, "category": row.text("Category")},
            choices=choices if _are_texts(choices) else [],
            image_names=[str(row.identity("ID"))],
            image_at=image_of_row(row.place.path, row.place.number),
        )

    def _official(self, example: Example, prediction: str) -> ScoredAnswer:
        choice = number(final_answer(prediction))
        return ScoredAnswer(choice, float(choice == example.gold))

    def _paper(self, example: Example, prediction: str) -> ScoredAnswer:
        """The authors compare to the letter: a space behind the colon makes an answer wrong."""
        choice = paper.raw_answer(prediction)
        return ScoredAnswer(choice, float(choice == example.gold))


TASK = Cvqa()


def _language(subset: str) -> str:
    """The language of a subset like "('Spanish', 'Spain')"; the subset itself where it has another shape."""
    try:
        pair = ast.literal_eval(subset)
    except (ValueError, SyntaxError):
        return subset
    return pair[0] if isinstance(pair, tuple) and pair and isinstance(pair[0], str) else subset


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
