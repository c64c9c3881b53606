"""CVQA: the number of the option, 1 to 4, accuracy by language and country. References: its parquet files.

The benchmark publishes no scorer; its rule is the accuracy of the option. A question whose label is hidden (-1) is left
out. The answer is the boxed number, else the one number that the text chooses (choices.py); `ID` is the question's id.
Source: Romero et al. 2024 (arXiv 2406.05967); numbered options: cvqa_eval.py of the paper's authors.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from comem_ray.prompts import CHOOSE_NUMBER, options
from comem_ray.tasks.images import ImageAt
from comem_ray.tasks.records import (
    Asked,
    Question,
    Row,
    Rules,
    Verdict,
    identity,
    judged,
    loaded,
    read_parquet,
    text_field,
    texts_field,
)
from comem_ray.tasks.rules import paper
from comem_ray.tasks.rules.choices import number
from comem_ray.tasks.rules.scoring import boxed

COLUMNS = ("ID", "Subset", "Label", "Category")
ASKED = ("Question", "Translated Question", "Options", "Translated Options")
HIDDEN = -1


def load(paths: Sequence[Path]) -> list[Question]:
    """The questions of `paths`; a gold is the number of the right option, "1" to "4", None where it is hidden."""
    return loaded(((where, row) for path in paths for where, row in read_parquet(path, COLUMNS)), question)


def rows(paths: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    """The rows of the files; `image_at` is where the image of a row is."""
    for path in paths:
        mark = str(path.stat().st_size) if path.is_file() else ""
        for place, (where, row) in enumerate(read_parquet(path, [*COLUMNS, *ASKED])):
            yield where, {**row, "image_at": ImageAt(str(path), "image", place, mark)}


def question(where: str, row: dict[str, Any]) -> Question:
    """The question of a row; a gold is the number of the right option, None where it is hidden."""
    label, subset = row["Label"], text_field(where, row, "Subset")
    if label not in (HIDDEN, 0, 1, 2, 3):
        raise ValueError(f"{where}: Label is {label!r}, wanted 0 to 3, or -1 where it is hidden")
    groups = {"language": _language(subset), "subset": subset, "category": text_field(where, row, "Category")}
    return Question(identity(where, row, "ID"), None if label == HIDDEN else str(label + 1), groups)


def asked(where: str, row: dict[str, Any], english: bool = False) -> Asked:
    """The question with its options, "1." to "4.", in its own language or in English; the number is the answer."""
    prefix = "Translated " if english else ""
    choices = [(f"{n}.", text) for n, text in enumerate(texts_field(where, row, f"{prefix}Options"), start=1)]
    text = text_field(where, row, f"{prefix}Question")
    return Asked(options(text, choices, CHOOSE_NUMBER), own=row["image_at"])


def score(questions: Sequence[Question], answers: Sequence[str | None], rules: Rules) -> list[Verdict]:
    """The verdict on every answer."""
    return judged(_official if rules == "official" else _paper, questions, answers)


def _language(subset: str) -> str:
    """The language of a subset like "('Spanish', 'Spain')"; the subset itself where it has another shape."""
    try:
        pair = ast.literal_eval(subset)
    except (ValueError, SyntaxError):
        return subset
    return pair[0] if isinstance(pair, tuple) and pair and isinstance(pair[0], str) else subset


def _official(question: Question, prediction: str) -> Verdict:
    inside = boxed(prediction)
    chosen = number(prediction if inside is None else inside)
    return Verdict(chosen, float(chosen == question.gold))


def _paper(question: Question, prediction: str) -> Verdict:
    """The authors compare to the letter: a space behind the colon makes an answer wrong."""
    chosen = paper.raw_answer(prediction)
    return Verdict(chosen, float(chosen == question.gold))
