"""InfoSeek on a fixture in its own format; sources: infoseek_eval.py of its authors, and of the paper's authors."""

from __future__ import annotations

import pytest
from support.scored import card, jsonl, scores

QUESTION, ENTITY = "val_unseen_question", "val_unseen_entity"
FIXTURE = [
    ("a", QUESTION, ["Paris", "City of Paris"], "String"),
    ("b", QUESTION, [{"wikidata": 100.0, "range": [90.0, 110.0]}], "Numerical"),
    ("c", QUESTION, ["1877", "1878", "1879"], "Time"),
    ("d", ENTITY, ["the Lion"], "String"),
    ("e", ENTITY, ["Tunis"], "String"),
]
RIGHT = {"a": "paris!", "b": "about 105 metres", "c": r"so \boxed{1879}.", "d": "A lion", "e": "Tunis"}


@pytest.fixture
def files(tmp_path):
    same = {"image_id": "oven_00000001", "question": "?", "answer": ["-"]}
    rows = [same | {"data_id": i, "answer_eval": gold, "data_split": split} for i, split, gold, _ in FIXTURE]
    types = [{"data_id": i, "question_type": kind} for i, _, _, kind in FIXTURE]
    return jsonl(tmp_path / "infoseek_val.jsonl", rows), jsonl(tmp_path / "qtype.jsonl", types)


def test_gold_is_100(files):
    summary = card("infoseek", files[0], RIGHT, question_types=files[1]).summary
    assert summary["overall"] == 100.0
    assert summary["harmonic_means"] == {"final": {"score": 100.0, "interval": [100.0, 100.0]}}
    assert {kind: found["n"] for kind, found in summary["per_type"].items()} == {"numerical": 1, "string": 3, "time": 1}


def test_splits_types_and_their_harmonic_mean(files):
    summary = card("infoseek", files[0], RIGHT | {"a": "London", "e": "Paris"}, question_types=files[1]).summary
    assert summary["overall"] == 60.0
    assert summary["per_split"][QUESTION]["score"] == 66.67
    assert summary["per_split"][ENTITY]["score"] == 50.0
    assert summary["harmonic_means"]["final"]["score"] == round(2 / (1 / 66.67 + 1 / 50), 2)  # of the rounded scores
    assert summary["per_split_type"][f"{QUESTION} time"]["score"] == 100.0


def test_without_types_the_scores_are_the_same(files):
    with_types, without = (card("infoseek", files[0], RIGHT, question_types=t) for t in (files[1], None))
    assert scores(with_types) == scores(without)
    assert set(without.summary["per_type"]) == {"numerical", "string or time"}


def test_missing_unparsable_unmatched(files):
    result = card("infoseek", files[0], {"a": "Paris", "b": "many", "d": " ", "z": "x"})
    assert {name: result.summary[name] for name in ("n", "missing", "unparsable", "unmatched")} == {
        "n": 5, "missing": 2, "unparsable": 2, "unmatched": 1,
    }  # fmt: skip
    assert result.rows[2] == {"data_id": "c", "prediction": None, "parsed": None, "score": 0.0}


def test_a_translation(tmp_path):
    name = "infoseek_val_bulgarian.jsonl"
    path = jsonl(tmp_path / name, [{"data_id": "a", "answer_eval": ["САЩ", "С.Щ.А."], "data_split": QUESTION}])
    assert scores(card("infoseek", path, {"a": "сща"})) == [1.0]
    summary = card("infoseek", path, {"a": "САЩ"}).summary
    assert summary["harmonic_means"] == {"final": None}  # no unseen entity
    assert summary["per_language"]["bg"]["score"] == 100.0


def test_the_papers_rules(files):
    answers = {"a": "Tunis", "b": "Length: 105", "c": "18", "d": "Final answer: The Lion", "e": "Paris"}
    result = card("infoseek", files[0], answers, question_types=files[1], rules="paper")
    assert scores(result) == [1.0] * 5  # Tunis for Paris, and a part of a year
    assert "Compare these figures with the paper's table only" in result.warnings[0]
    assert scores(card("infoseek", files[0], answers, question_types=files[1])) == [0.0, 1.0, 0.0, 0.0, 0.0]


def test_faults_are_named(files, tmp_path):
    few = jsonl(tmp_path / "few.jsonl", [{"data_id": "a", "question_type": "String"}])
    with pytest.raises(ValueError, match=r"line 2: the question types lack 'b'"):
        card("infoseek", files[0], RIGHT, question_types=few)
    wrong = jsonl(tmp_path / "wrong.jsonl", [{"data_id": i, "question_type": "Time"} for i in "abcde"])
    with pytest.raises(ValueError, match=r"line 2: a question of type time with the answer_eval"):
        card("infoseek", files[0], RIGHT, question_types=wrong)
    with pytest.raises(ValueError, match="a second question with id 'a'"):
        card("infoseek", [files[0], files[0]], RIGHT)
