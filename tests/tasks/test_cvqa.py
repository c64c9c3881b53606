"""CVQA on a fixture in its own format; it publishes no scorer, the paper's authors do (cvqa_eval.py)."""

from __future__ import annotations

import pytest
from support.scored import card, parquet, scores

FIXTURE = [("a", "('Spanish', 'Spain')", 0), ("b", "('Spanish', 'Mexico')", 3), ("c", "('Urdu', 'India')", 1)]


@pytest.fixture
def references(tmp_path):
    rows = [
        {
            "image": {"bytes": b"x", "path": None}, "ID": name, "Subset": subset, "Question": "?",
            "Translated Question": "?", "Options": ["a", "b", "c", "d"], "Translated Options": ["a", "b", "c", "d"],
            "Label": label, "Category": "Food", "Image Type": "Self", "Image Source": "x", "License": "y",
        }
        for name, subset, label in [*FIXTURE, ("d", "('Urdu', 'India')", -1)]
    ]  # fmt: skip
    return parquet(tmp_path / "cvqa.parquet", rows)


def test_gold_is_100_and_hidden_labels_are_left_out(references):
    summary = card("cvqa", references, {"a": "1", "b": r"Final answer: \boxed{4}", "c": "2. b", "d": "1"}).summary
    assert (summary["overall"], summary["n"], summary["left_out"], summary["unmatched"]) == (100.0, 3, 1, 0)
    assert {name: found["n"] for name, found in summary["per_language"].items()} == {"Spanish": 2, "Urdu": 1}
    assert set(summary["per_subset"]) == {subset for _, subset, _ in FIXTURE}


def test_numbers_alone_count(references):
    result = card("cvqa", references, {"a": "A", "b": "3 or 4", "c": "b"})
    assert scores(result) == [0.0] * 3
    assert result.summary["unparsable"] == 3


def test_the_papers_rules_compare_to_the_letter(references):
    answers = {"a": "Final answer:1", "b": "Final answer: 4", "c": r"\boxed{2}"}
    assert scores(card("cvqa", references, answers, rules="paper")) == [1.0, 0.0, 1.0]


def test_faults_are_named(tmp_path):
    row = {"ID": "a", "Subset": "x", "Label": 4, "Category": "y"}
    with pytest.raises(ValueError, match=r"row 1: Label is 4"):
        card("cvqa", parquet(tmp_path / "c.parquet", [row]), {})
