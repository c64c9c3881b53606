"""MRAG-Bench on a fixture in its own format; source: eval/score.py of its authors."""

from __future__ import annotations

import pytest
from support.scored import card, parquet, scores

FIXTURE = [(0, "A", "Angle"), (1, "B", "Angle"), (2, "C", "Temporal"), (3, "D", "Others")]


@pytest.fixture
def references(tmp_path):
    rows = [
        {
            "id": i, "aspect": "perspective", "scenario": scenario, "image": {"bytes": b"x", "path": None},
            "gt_images": [], "question": "?", "A": "a", "B": "b", "C": "c", "D": "d", "answer_choice": letter,
            "answer": letter.lower(), "image_type": "x", "source": "y", "retrieved_images": [],
        }
        for i, letter, scenario in FIXTURE
    ]  # fmt: skip
    return parquet(tmp_path / "test-00000.parquet", rows)


def test_gold_is_100(references):
    summary = card("mrag", references, {i: letter for i, letter, _ in FIXTURE}).summary
    assert summary["overall"] == 100.0
    assert {name: found["n"] for name, found in summary["per_scenario"].items()} == {
        "Angle": 2,
        "Others": 1,
        "Temporal": 1,
    }


def test_letters_as_its_authors_find_them(references):
    result = card("mrag", references, {"0": "(B) no, (A).", "1": "It is a dog", "2": r"\boxed{C}", "3": "D: d"})
    assert scores(result) == [1.0, 0.0, 1.0, 0.0]
    assert [row["parsed"] for row in result.rows] == ["A", None, "C", None]
    assert result.summary["unparsable"] == 2
    assert result.summary["per_scenario"]["Angle"]["score"] == 50.0


def test_the_papers_rules_take_the_first_character(references):
    answers = {0: "A dog", 1: "Answer: B", 2: " C)", 3: ""}
    assert scores(card("mrag", references, answers, rules="paper")) == [1.0, 0.0, 1.0, 0.0]


def test_faults_are_named(tmp_path):
    row = {"id": 1, "aspect": "x", "scenario": "y", "answer_choice": "AB"}
    with pytest.raises(ValueError, match=r"row 1: answer_choice is 'AB'"):
        card("mrag", parquet(tmp_path / "a.parquet", [row]), {})
