"""The table beside the paper's: which arm stands in it, which figures, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from comem_ray.evaluation.figures import ArmFigures, EvaluationFigures, Share
from comem_ray.report.paper import PAPER, beside_the_paper, conditions

SHARE = Share(50.0, 40.0, 60.0, 8)


def arm(mode: str, k: int, knowledge: int = 14_000, gold_position: int | None = None) -> ArmFigures:
    return ArmFigures(mode, k, gold_position, knowledge, SHARE, {}, 10.0, 0.0, None, None, {})


def summary(score: float, **groups: Any) -> dict[str, Any]:
    return {"overall": score, "interval": [score - 5, score + 5], "n": 8, **groups}


def source(task: str, official: dict[str, Any], paper: dict[str, Any]) -> dict[str, Any]:
    return {"task": task, "official": official, "paper_rules": paper}


@pytest.fixture
def figures() -> EvaluationFigures:
    arms = {
        "none": arm("none", 0, 0),
        "memory, k=1": arm("memory", 1),
        "memory, k=10": arm("memory", 10),
        "memory, k=50": arm("memory", 50),
        "memory, k=10, 7 items": arm("memory", 10, 7),
        "memory, k=10, right item at 1": arm("memory", 10, gold_position=1),
        "rag, k=3": arm("rag", 3),
    }
    official = {name: summary(n) for n, name in enumerate(arms)}
    paper = {name: summary(n + 50) for n, name in enumerate(arms)}
    return EvaluationFigures(8, arms, {}, {}, {}, sources={"okvqa": source("okvqa", official, paper)})


def test_the_arms_are_those_that_are_as_the_papers(figures: EvaluationFigures) -> None:
    assert beside_the_paper(figures) == [
        ["OK-VQA", "none", "36.3", "50.0", "0.0 (-5.0 to 5.0)", 8],
        ["OK-VQA", "rag", "41.9", "56.0", "6.0 (1.0 to 11.0)", 8],
        ["OK-VQA", "memory", "57.7", "52.0", "2.0 (-3.0 to 7.0)", 8],
    ]
    assert list(conditions(figures)) == [
        "Mode rag: 3 items of 14,000 (the paper: 10 of about 2,000,000, nearest by image).",
        "Mode memory: 10 items of 14,000 (the paper: 10 of about 2,000,000, nearest by image).",
    ]


def test_what_the_paper_does_not_have_is_not_there(figures: EvaluationFigures) -> None:
    assert beside_the_paper(replace(figures, sources={"ours": source("jsonl", {}, {})})) == []
    of_before = {"okvqa": {"task": "okvqa", "official": {"none": summary(1.0)}}}
    assert beside_the_paper(replace(figures, sources=of_before)) == [
        ["OK-VQA", "none", "36.3", None, "1.0 (-4.0 to 6.0)", 8]
    ]


def test_infoseek_is_compared_by_split_and_its_other_languages_apart(figures: EvaluationFigures) -> None:
    def half(score: float) -> dict[str, Any]:
        return {"score": score, "interval": [score, score]}

    splits = {"val_unseen_question": half(1.0), "val_unseen_entity": half(2.0)}
    english = summary(1.5, per_split=splits, per_language={"en": half(1.5)})
    spanish = summary(7.0, per_split=splits, per_language={"es": half(7.0)})
    sources = {"a": source("infoseek", {"none": english}, {}), "b": source("infoseek", {"none": spanish}, {})}
    rows = beside_the_paper(replace(figures, sources=sources))
    assert [(row[0], row[4].split()[0]) for row in rows] == [
        ("InfoSeek, unseen question", "1.0"),
        ("InfoSeek, unseen entity", "2.0"),
        ("InfoSeek, five languages (here: es)", "7.0"),
    ]


def test_every_row_has_all_modes_in_percent() -> None:
    for row in PAPER:
        assert row.scores.keys() == {"none", "rag", "memory"}
        assert all(0 < score < 100 for score in row.scores.values())
