"""A-OKVQA: direct answers (`load`, `score`) and multiple choice (`load_choices`, `score_choices`).

Answers are compared to the letter: no case, space or punctuation is forgiven. A direct answer scores
min(1, annotators who say exactly this / 3), and questions with a difficult direct answer are left out; a choice is
right where it equals the right choice's text, and one that is none of the choices counts as unparsable.
Source: evaluation/eval_predictions.py of the A-OKVQA authors (Schwenk et al. 2022, allenai/aokvqa).
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
    texts_field,
    unique,
)
from comem_ray.evaluation.scoring import boxed


def load(paths: Sequence[Path]) -> list[Question]:
    """The questions of `paths` for direct answers; a gold is the list of them, None where it is left out."""
    return unique((where, _direct(where, row)) for where, row in _rows(paths))


def load_choices(paths: Sequence[Path]) -> list[Question]:
    """The questions of `paths` for multiple choice; a gold is (choices, index of the right one)."""
    return unique((where, _choices(where, row)) for where, row in _rows(paths))


def score(questions: Sequence[Question], answers: Sequence[str | None], rules: Rules) -> list[Verdict]:
    """The verdict on every direct answer."""
    return judged(_official if rules == "official" else _paper, questions, answers)


def score_choices(questions: Sequence[Question], answers: Sequence[str | None], rules: Rules) -> list[Verdict]:
    """The verdict on every choice. ValueError for the paper's rules: its authors have none for multiple choice."""
    if rules == "paper":
        raise ValueError("the paper's authors have no scorer for A-OKVQA multiple choice")
    return judged(_choice, questions, answers)


def _rows(paths: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in paths:
        document = read_json(path)
        if not isinstance(document, list) or not all(isinstance(row, dict) for row in document):
            raise ValueError(f"{path}: wanted a list of questions")
        yield from ((f"{path}, question {number}", row) for number, row in enumerate(document, start=1))


def _direct(where: str, row: dict[str, Any]) -> Question:
    difficult = row.get("difficult_direct_answer")
    if not isinstance(difficult, bool):
        raise ValueError(f"{where}: field 'difficult_direct_answer' is {difficult!r}, wanted true or false")
    gold = None if difficult else texts_field(where, row, "direct_answers")
    return Question(identity(where, row, "question_id"), gold)


def _choices(where: str, row: dict[str, Any]) -> Question:
    choices, right = texts_field(where, row, "choices"), row.get("correct_choice_idx")
    if not isinstance(right, int) or not 0 <= right < len(choices):
        raise ValueError(f"{where}: field 'correct_choice_idx' is {right!r}, wanted 0 to {len(choices) - 1}")
    return Question(identity(where, row, "question_id"), (choices, right))


def _official(question: Question, prediction: str) -> Verdict:
    inside = boxed(prediction)
    answer = prediction if inside is None else inside
    return Verdict(said(answer), min(1.0, question.gold.count(answer) / 3))


def _choice(question: Question, prediction: str) -> Verdict:
    inside = boxed(prediction)
    answer = prediction if inside is None else inside
    choices, right = question.gold
    return Verdict(answer if answer in choices else None, float(answer == choices[right]))


def _paper(question: Question, prediction: str) -> Verdict:
    return Verdict(paper.answer(prediction), float(paper.equals_one(prediction, question.gold)))
