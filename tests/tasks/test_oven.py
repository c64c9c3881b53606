"""OVEN on a fixture in its own format; source: oven_eval.py of its authors."""

from __future__ import annotations

import pytest
from support.scored import card, jsonl, scores

from comem_ray.tasks.scorecard import scorecard
from comem_ray.tasks.task import TaskFiles

FIXTURE = [
    ("e1", "Q1", "Lion", "entity_val_seen"),
    ("e2", "Q2", "Blue Gorge", "entity_val_unseen"),
    ("e3", "Q3", "Plover", "entity_val_unseen"),
    ("q1", "Q4", "Avocado", "query_val_seen"),
    ("q2", "Q1", "Lion", "query_val_unseen"),
]
GOLD = {i: name for i, _, name, _ in FIXTURE}
TITLES = [("Q9", "Avocado oil"), ("Q1", "Lion"), ("Q2", "Blue Gorge"), ("Q3", "Plover"), ("Q4", "Avocado")]


@pytest.fixture
def references(tmp_path):
    rows = [
        {"data_id": i, "image_id": "x", "question": "?", "entity_id": q, "entity_text": name, "data_split": split}
        for i, q, name, split in FIXTURE
    ]
    return [
        jsonl(tmp_path / f"oven_{part}_val.jsonl", [row for row in rows if row["data_id"][0] == part[0]])
        for part in ("entity", "query")
    ]


@pytest.fixture
def titles(tmp_path):
    rows = [{"wikidata_id": q, "wikipedia_title": title} for q, title in TITLES]
    return jsonl(tmp_path / "Wiki6M_ver_1_0_title_only.jsonl", rows)


def test_gold_is_100(references, titles):
    result = card("oven", references, GOLD, titles=titles)
    assert result.summary["overall"] == 100.0
    assert result.summary["harmonic_means"]["final"]["score"] == 100.0
    assert [warning.partition(":")[0] for warning in result.warnings] == ["no --vocabulary"]
    assert result.rows[0] == {
        "data_id": "e1", "prediction": "Lion", "parsed": "Lion", "score": 1.0, "entity_id": "Q1", "title": "Lion",
    }  # fmt: skip


def test_harmonic_means_of_seen_and_unseen(references, titles):
    answers = GOLD | {"e3": "gorge", "q1": r"\boxed{avocado oil}"}
    means = card("oven", references, answers, titles=titles).summary["harmonic_means"]
    assert means["entity"]["score"] == round(2 / (1 / 100 + 1 / 50), 2)
    assert means["query"]["score"] == 0.0
    assert means["final"]["score"] == 0.0


def test_a_name_without_a_known_word_is_unparsable(references, titles):
    result = card("oven", references, {"e1": "giraffe"}, titles=titles)
    assert result.summary["unparsable"] == 1
    assert result.summary["missing"] == 4


def test_without_titles_the_references_serve_and_it_is_said(references):
    result = card("oven", references[0], GOLD)
    assert result.summary["overall"] == 100.0
    assert result.summary["harmonic_means"]["query"] is None
    assert result.summary["unmatched"] == 2
    assert "no --titles" in result.warnings[0]


def test_the_papers_rules(references, titles):
    # Cut at "by", the name begins with what follows it.
    assert scores(card("oven", references, {"e1": "Seen: cub by lion"}, titles=titles, rules="paper"))[0] == 1.0


def test_faults_are_named(tmp_path):
    path = jsonl(tmp_path / "o.jsonl", [{"data_id": "a", "entity_id": "Q1", "entity_text": "x", "data_split": "val"}])
    with pytest.raises(ValueError, match=r"o\.jsonl, line 1: data_split is 'val'"):
        card("oven", path, {})


def test_names_that_are_linked_already_count_as_they_are(references, tmp_path):
    rows = [{"data_id": i, "prediction": "x", "pred_entity_id": q} for i, q, *_ in FIXTURE[:3]]
    rows += [{"data_id": "q1", "prediction": "x", "bm25": [["Avocado", "Q4"], ["Lion", "Q1"]]}]
    rows += [{"data_id": "q2", "prediction": "Lion", "pred_entity_id": "Q9"}]
    result = scorecard("oven", TaskFiles(references), jsonl(tmp_path / "linked.jsonl", rows))
    assert scores(result) == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert result.rows[3]["entity_id"] == "Q4"
