"""The scorecard: what counts, what does not, and what is refused."""

from __future__ import annotations

import pytest
from support.scored import card, jsonl

ROWS = [
    {"data_id": name, "question": "?", "image": None, "answers": [answer]}
    for name, answer in (("a", "dog"), ("b", "cat"), ("c", "cow"))
]


def test_every_question_of_the_references_counts(tmp_path):
    path = jsonl(tmp_path / "q.jsonl", ROWS)
    result = card("jsonl", path, {"a": "dog", "b": " ", "z": "hen"})
    counts = {name: result.summary[name] for name in ("task", "n", "missing", "unparsable", "unmatched", "left_out")}
    assert counts == {"task": "jsonl", "n": 3, "missing": 1, "unparsable": 1, "unmatched": 1, "left_out": 0}
    assert result.summary["overall"] == 33.33
    assert result.rows[2] == {"data_id": "c", "prediction": None, "parsed": None, "score": 0.0}


def test_what_cannot_be_scored_is_refused(tmp_path):
    path = jsonl(tmp_path / "q.jsonl", ROWS)
    for task, references, options, message in (
        ("jsonls", path, {}, "there is no task 'jsonls'"),
        ("jsonl", path, {"rules": "mine"}, "there are no rules 'mine', want official or paper"),
        ("jsonl", path, {"titles": path}, "task jsonl does not take titles"),
        ("jsonl", [path, path], {}, r"line 1: a second question with id 'a'"),
        ("jsonl", jsonl(tmp_path / "empty.jsonl", []), {}, "hold no question"),
    ):
        with pytest.raises(ValueError, match=message):
            card(task, references, {}, **options)


def test_predictions_for_other_questions_are_told(tmp_path):
    path = jsonl(tmp_path / "q.jsonl", ROWS)
    (warning,) = card("jsonl", path, {"x": "dog", "y": "cat"}).warnings
    assert "no id is one of the references: the first is 'x', theirs is 'a'" in warning
    assert card("jsonl", path, {"x": "dog", "a": "dog"}).warnings == []


def test_answers_in_dress_and_badly_escaped_ones_are_right(tmp_path):
    path = jsonl(tmp_path / "q.jsonl", ROWS)
    result = card("jsonl", path, {"a": r"\boxed{\text{dog}}", "b": "**cat**", "c": "\x08oxed{\text{cow}}"})
    assert result.summary["overall"] == 100.0
    assert "1 of 3 predictions are badly escaped" in result.warnings[0]
