"""A-OKVQA's multiple choice on a fixture in its own format; source: evaluation/eval_predictions.py of its authors."""

from __future__ import annotations

import pytest
from support.scored import card, document, scores


@pytest.fixture
def references(tmp_path):
    same = {"image_id": 1, "question": "?", "choices": ["surfing", "Rowing", "skiing", "diving"]}
    rows = [{**same, "question_id": name, "correct_choice_idx": 1} for name in "abc"]
    return document(tmp_path / "aokvqa_v1p0_val.json", rows)


def test_choices(references):
    result = card("aokvqa-mc", references, {"a": "Rowing", "b": "rowing", "c": r"\boxed{skiing}"})
    assert scores(result) == [1.0, 0.0, 0.0]
    assert [row["parsed"] for row in result.rows] == ["Rowing", None, "skiing"]
    assert result.summary["n"] == 3
    assert scores(card("aokvqa-mc", references, {"a": "B", "b": "1"})) == [0.0] * 3  # the choice itself is asked for


def test_faults_are_named(references, tmp_path):
    with pytest.raises(ValueError, match="no scorer for aokvqa-mc"):
        card("aokvqa-mc", references, {}, rules="paper")
    row = {"question_id": "a", "choices": ["x", "y"], "correct_choice_idx": 2}
    with pytest.raises(ValueError, match=r"question 1: field 'correct_choice_idx' is 2, wanted 0 to 1"):
        card("aokvqa-mc", document(tmp_path / "a.json", [row]), {})
