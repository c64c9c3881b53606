"""MRAG-Bench: multiple choice A-D, accuracy by scenario and aspect. References: its parquet files.

Source: eval/score.py of the MRAG-Bench authors (Hu et al. 2024, arXiv 2410.08182); how a letter is found: choices.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from comem_ray.prompts import CHOOSE_LETTER, options
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
)
from comem_ray.tasks.rules.choices import LETTERS, letter
from comem_ray.tasks.rules.scoring import boxed

COLUMNS = ("id", "aspect", "scenario", "answer_choice")
ASKED = ("question", *LETTERS)


def load(paths: Sequence[Path]) -> list[Question]:
    """The questions of `paths`; a gold is the letter of the right choice."""
    return loaded(((where, row) for path in paths for where, row in read_parquet(path, COLUMNS)), question)


def rows(paths: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    """The rows of the files; `image_at` is where the image of a row is."""
    for path in paths:
        mark = str(path.stat().st_size) if path.is_file() else ""
        for number, (where, row) in enumerate(read_parquet(path, [*COLUMNS, *ASKED])):
            yield where, {**row, "image_at": ImageAt(str(path), "image", number, mark)}


def question(where: str, row: dict[str, Any]) -> Question:
    """The question of a row; a gold is the letter of the right choice."""
    gold = text_field(where, row, "answer_choice")
    if gold not in LETTERS or len(gold) != 1:
        raise ValueError(f"{where}: answer_choice is {gold!r}, wanted A, B, C or D")
    groups = {name: text_field(where, row, name) for name in ("scenario", "aspect")}
    return Question(identity(where, row, "id"), gold, groups)


def asked(where: str, row: dict[str, Any]) -> Asked:
    """The question with its options, "(A) ..." to "(D) ...", whose letter is the answer."""
    choices = [(f"({letter})", text_field(where, row, letter)) for letter in LETTERS]
    return Asked(options(text_field(where, row, "question"), choices, CHOOSE_LETTER), own=row["image_at"])


def score(questions: Sequence[Question], answers: Sequence[str | None], rules: Rules) -> list[Verdict]:
    """The verdict on every answer."""
    return judged(_official if rules == "official" else _paper, questions, answers)


def _official(question: Question, prediction: str) -> Verdict:
    inside = boxed(prediction)
    chosen = letter(prediction if inside is None else inside)
    return Verdict(chosen, float(chosen == question.gold))


def _paper(question: Question, prediction: str) -> Verdict:
    """The authors take the first character, and ask GPT where it is no letter A-D; such an answer is wrong here."""
    first = prediction.strip()[:1]
    chosen = first if first and first in LETTERS else None
    return Verdict(chosen, float(chosen == question.gold))
