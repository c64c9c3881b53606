"""MRAG-Bench: multiple choice A-D, accuracy by scenario and aspect. References: its parquet files.

Source: eval/score.py of the MRAG-Bench authors (Hu et al. 2024, arXiv 2410.08182); how a letter is found: choices.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from comem_ray.evaluation.choices import LETTERS, letter
from comem_ray.evaluation.records import Question, Rules, Verdict, identity, judged, read_parquet, text_field, unique
from comem_ray.evaluation.scoring import boxed

COLUMNS = ("id", "aspect", "scenario", "answer_choice")


def load(paths: Sequence[Path]) -> list[Question]:
    """The questions of `paths`; a gold is the letter of the right choice."""
    return unique(_questions(paths))


def score(questions: Sequence[Question], answers: Sequence[str | None], rules: Rules) -> list[Verdict]:
    """The verdict on every answer."""
    return judged(_official if rules == "official" else _paper, questions, answers)


def _questions(paths: Sequence[Path]) -> Iterator[tuple[str, Question]]:
    for path in paths:
        for where, row in read_parquet(path, COLUMNS):
            gold = text_field(where, row, "answer_choice")
            if gold not in LETTERS or len(gold) != 1:
                raise ValueError(f"{where}: answer_choice is {gold!r}, wanted A, B, C or D")
            groups = {name: text_field(where, row, name) for name in ("scenario", "aspect")}
            yield where, Question(identity(where, row, "id"), gold, groups)


def _official(question: Question, prediction: str) -> Verdict:
    inside = boxed(prediction)
    chosen = letter(prediction if inside is None else inside)
    return Verdict(chosen, float(chosen == question.gold))


def _paper(question: Question, prediction: str) -> Verdict:
    """The authors take the first character, and ask GPT where it is no letter A-D; such an answer is wrong here."""
    first = prediction.strip()[:1]
    chosen = first if first and first in LETTERS else None
    return Verdict(chosen, float(chosen == question.gold))
