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

from comem_ray.prompts import CHOOSE_WORDS, options
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
    texts_field,
)
from comem_ray.tasks.rules import paper
from comem_ray.tasks.rules.scoring import boxed


def load(paths: Sequence[Path]) -> list[Question]:
    """The questions of `paths` for direct answers; a gold is the list of them, None where it is left out."""
    return loaded(rows(paths), question)


def load_choices(paths: Sequence[Path]) -> list[Question]:
    """The questions of `paths` for multiple choice; a gold is (choices, index of the right one)."""
    return loaded(rows(paths), question_choices)


def score(questions: Sequence[Question], answers: Sequence[str | None], rules: Rules) -> list[Verdict]:
    """The verdict on every direct answer."""
    return judged(_official if rules == "official" else _paper, questions, answers)


def score_choices(questions: Sequence[Question], answers: Sequence[str | None], rules: Rules) -> list[Verdict]:
    """The verdict on every choice. ValueError for the paper's rules: its authors have none for multiple choice."""
    if rules == "paper":
        raise ValueError("the paper's authors have no scorer for A-OKVQA multiple choice")
    return judged(_choice, questions, answers)


def rows(paths: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    """The rows of the files."""
    for path in paths:
        document = read_json(path)
        if not isinstance(document, list):
            raise ValueError(f"{path}: wanted a list of questions")
        for number, row in enumerate(document, start=1):
            fault = f"{path}: wanted a list of questions, number {number} is a JSON {type(row).__name__}"
            yield f"{path}, question {number}", row if isinstance(row, dict) else ValueError(fault)


def question(where: str, row: dict[str, Any]) -> Question:
    """The question of a row for a direct answer; a gold is the list of them, None where it is left out."""
    difficult = row.get("difficult_direct_answer")
    if not isinstance(difficult, bool):
        raise ValueError(f"{where}: field 'difficult_direct_answer' is {difficult!r}, wanted true or false")
    gold = None if difficult else texts_field(where, row, "direct_answers")
    return Question(identity(where, row, "question_id"), gold)


def question_choices(where: str, row: dict[str, Any]) -> Question:
    """The question of a row for multiple choice; a gold is (choices, index of the right one)."""
    choices, right = texts_field(where, row, "choices"), row.get("correct_choice_idx")
    if not isinstance(right, int) or not 0 <= right < len(choices):
        raise ValueError(f"{where}: field 'correct_choice_idx' is {right!r}, wanted 0 to {len(choices) - 1}")
    return Question(identity(where, row, "question_id"), (choices, right))


def asked(where: str, row: dict[str, Any]) -> Asked:
    """The bare question."""
    return Asked(text_field(where, row, "question"), _image_names(where, row))


def asked_choices(where: str, row: dict[str, Any]) -> Asked:
    """The question with its options, "- ..."; no letters: the rule wants the words of the option."""
    choices = [("-", text) for text in texts_field(where, row, "choices")]
    return Asked(options(text_field(where, row, "question"), choices, CHOOSE_WORDS), _image_names(where, row))


def _image_names(where: str, row: dict[str, Any]) -> list[str]:
    """COCO 2017's name of the image, in any folder of its archives; in those of 2014 it has another."""
    number = row.get("image_id")
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError(f"{where}: field 'image_id' is {number!r}, wanted a whole number")
    parts = ("val", "train", "test")
    of_2014 = [f"COCO_{part}2014_{number:012d}" for part in parts[:2]]
    return [f"{number:012d}", *(f"{part}2017/{number:012d}" for part in parts), *of_2014]


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
