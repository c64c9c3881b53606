"""Published files of questions in the folder of $COMEM_SAMPLES, where that is set: their own gold answers score 100."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.scored import card

from comem_ray.config import EvaluationSourceConfig
from comem_ray.evaluation.sources import read_source

SAMPLES = Path(os.environ.get("COMEM_SAMPLES", "samples"))
pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="COMEM_SAMPLES names no folder of published samples")


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def gold(row):
    if "entity_text" in row:
        return row["entity_text"]
    first = row["answer_eval"][0]
    return str(first["wikidata"]) if isinstance(first, dict) else first


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.jsonl")), ids=lambda path: path.name)
def test_gold_scores_100(path, tmp_path):
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    result = card(path.name.split("_")[0], copy, {row["data_id"]: gold(row) for row in rows(path)})
    assert result.summary["overall"] == 100.0
    assert result.summary["n"] == 60
    assert result.summary["missing"] == result.summary["unparsable"] == 0


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.jsonl")), ids=lambda path: path.name)
def test_every_row_is_a_question_to_ask(path, tmp_path):
    source = EvaluationSourceConfig(task=path.name.split("_")[0], paths=[str(path)], images=[str(tmp_path)])
    questions = read_source(source)
    assert [q.own_id for q in questions.questions] == [row["data_id"] for row in rows(path)]
    assert {q.fault for q in questions.questions} == {"image_missing"}
    assert not questions.rejected
