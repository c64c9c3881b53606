"""A-OKVQA on a fixture in its own format; source: evaluation/eval_predictions.py of its authors."""

from __future__ import annotations

import pytest
from support.scored import card, document, scores


@pytest.fixture
def references(tmp_path):
    def row(name, direct, difficult):
        return {
            "question_id": name, "image_id": 1, "question": "?", "choices": ["surfing", "Rowing", "skiing", "diving"],
            "correct_choice_idx": 1, "direct_answers": direct, "difficult_direct_answer": difficult, "rationales": [],
        }  # fmt: skip

    rows = [row("a", ["row"] * 2 + ["rowing"] * 8, False), row("b", ["ski"] * 10, True), row("c", ["car"] * 10, False)]
    return document(tmp_path / "aokvqa_v1p0_val.json", rows)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("row", 2 / 3),
        ("rowing", 1.0),
        (r"They row: \boxed{rowing}", 1.0),
        ("Rowing", 0.0),  # to the letter
        ("rowing ", 0.0),
        ("a rowing", 0.0),
        ("", 0.0),
    ],
)
def test_direct_answers(references, text, wanted):
    assert scores(card("aokvqa", references, {"a": text}))[0] == pytest.approx(wanted)


def test_difficult_ones_are_left_out(references):
    summary = card("aokvqa", references, {"a": "rowing", "b": "ski", "c": "car"}).summary
    assert (summary["overall"], summary["n"], summary["left_out"], summary["unmatched"]) == (100.0, 2, 1, 0)


def test_the_papers_rules(references):
    assert scores(card("aokvqa", references, {"a": "Answer: The Row.", "c": "Cars"}, rules="paper")) == [1.0, 0.0]


def test_faults_are_named(tmp_path):
    with pytest.raises(ValueError, match="wanted a list of questions"):
        card("aokvqa", document(tmp_path / "a.json", {}), {})
    with pytest.raises(ValueError, match=r"question 1: field 'difficult_direct_answer' is None, wanted true or false"):
        card("aokvqa", document(tmp_path / "a.json", [{"question_id": "a"}]), {})
