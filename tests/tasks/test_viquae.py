"""ViQuAE on a fixture in its own format; source: meerqat/train/metrics.py of its authors."""

from __future__ import annotations

import pytest
from support.scored import card, jsonl, scores


@pytest.fixture
def references(tmp_path):
    def row(name, answers):
        output = {"answer": answers, "original_answer": answers[0], "provenance": []}
        return {"id": name, "input": "?", "image": "x.jpg", "output": output}

    rows = [row("a", ["Barack Obama", "Obama"]), row("b", ["The Who"]), row("c", ["a the"])]
    return jsonl(tmp_path / "viquae.jsonl", rows)


def test_exact_match_and_f1(references):
    result = card("viquae", references, {"a": "President Barack Obama", "b": "who?", "c": "an"})
    assert scores(result) == [0.0, 1.0, 1.0]  # nothing is left of either side of c, which is equal
    # "president barack obama": 2 of 3 words against 2 of 2, and 1 of 3 against 1 of 1
    assert [row["f1"] for row in result.rows] == pytest.approx([0.8, 1.0, 0.0])
    assert result.summary["overall"] == 66.67
    assert result.summary["f1"]["score"] == 60.0


def test_words_count_as_often_as_they_stand(references):
    assert card("viquae", references, {"a": "Obama Obama"}).rows[0]["f1"] == pytest.approx(2 / 3)


def test_missing_has_f1_too(references):
    result = card("viquae", references, {"a": r"It is \boxed{Obama}"})
    assert result.rows[1] == {"data_id": "b", "prediction": None, "parsed": None, "score": 0.0, "f1": 0.0}
    assert result.summary["f1"]["score"] == 33.33


def test_the_papers_rules_compare_with_golds_as_they_stand(tmp_path):
    path = jsonl(
        tmp_path / "v.jsonl",
        [{"id": "a", "output": {"answer": ["Obama"]}}, {"id": "b", "output": {"answer": ["obama"]}}],
    )
    result = card("viquae", path, {"a": "Obama", "b": "Name: The Obama"}, rules="paper")
    assert scores(result) == [0.0, 1.0]
    assert "f1" not in result.summary


def test_faults_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"line 1: field 'output' is None"):
        card("viquae", jsonl(tmp_path / "v.jsonl", [{"id": "a"}]), {})
    with pytest.raises(ValueError, match=r"line 1: field 'answer' is \[\]"):
        card("viquae", jsonl(tmp_path / "v.jsonl", [{"id": "a", "output": {"answer": []}}]), {})
