"""Questions of one's own: fields, languages, rules, and what is refused."""

from __future__ import annotations

import pytest
from support.scored import card, jsonl, scores

from comem_ray.tasks.files import RejectedRow
from comem_ray.tasks.jsonl import TASK
from comem_ray.tasks.rules.scoring import UnknownRule
from comem_ray.tasks.task import Scoring, TaskFiles

ROW = {"data_id": "1", "question": "Who?", "image": "a.jpg", "answers": ["Ann"]}


def read(tmp_path, *rows, language=None):
    return list(TASK.read(TaskFiles([jsonl(tmp_path / "q.jsonl", list(rows))]), language))


def test_fields(tmp_path):
    second = {**ROW, "image": None, "language": "fr", "rule": "encyclopedic_vqa", "answers": ["a", "b&&c"]}
    first, second = read(tmp_path, ROW, second, language="de")
    assert (first.rule, first.gold, first.language, first.image_names) == ("exact", ["Ann"], "de", ["a.jpg"])
    assert (second.rule, second.gold, second.language) == ("encyclopedic_vqa", "a|b&&c", "fr")
    assert second.image_names == []  # it has none, and may be asked
    assert TASK.ask(second) == "Who?"


@pytest.mark.parametrize("changed", [{"image": 7}, {"rule": 7}, {"language": 7}, {"data_id": None}])
def test_fields_of_another_kind_are_rejected(tmp_path, changed):
    (row,) = read(tmp_path, {**ROW, **changed})
    assert isinstance(row, RejectedRow)
    assert row.reason == "bad_field"
    assert next(iter(changed)) in row.detail


def test_each_answer_is_scored_by_its_rows_rule(tmp_path):
    rows = [ROW, {**ROW, "data_id": "2", "rule": "vqa", "answers": ["dog"] * 3 + ["cat"] * 7}]
    result = card("jsonl", jsonl(tmp_path / "q.jsonl", rows), {"1": r"\boxed{ann}", "2": "dog"})
    assert scores(result) == pytest.approx([1.0, 0.9])
    assert result.summary["overall"] == 95.0
    with pytest.raises(ValueError, match="no scorer for jsonl"):
        card("jsonl", jsonl(tmp_path / "q.jsonl", rows), {}, rules="paper")


def test_a_rule_of_ones_own(tmp_path):
    (example,) = read(tmp_path, {**ROW, "rule": "mine"})
    mine = Scoring(own_rules={"mine": lambda prediction, gold: float(prediction == gold[0])})
    assert [TASK.score([example], [text], mine)[0].score for text in ("Ann", "ann", None)] == [1.0, 0.0, 0.0]
    with pytest.raises(UnknownRule, match="no scoring rule 'mine'"):
        TASK.score([example], ["Ann"])
