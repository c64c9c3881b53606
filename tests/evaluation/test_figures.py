"""Figures through report.json: they come back as they were, under the names that the file has always had."""

import json
from dataclasses import replace

import pytest

from comem_ray.evaluation.figures import (
    ArmFigures,
    EvaluationFigures,
    Faults,
    HelpFigures,
    MemoryStoreSize,
    PairFigures,
    Share,
)

SHARE = Share(66.67, 20.77, 93.85, 3)


@pytest.fixture
def figures():
    arm = ArmFigures("rag", 1, None, 20, SHARE, {"image_missing": 1}, 10.0, 0.0, 3.0, None, {"fact": {"C": SHARE}})
    recall = {1: SHARE, 3: Share(100.0, 43.85, 100.0, 3)}
    return EvaluationFigures(3, {"rag, k=1": arm}, recall, {20: recall}, {"k=1": PairFigures(33.33, 1.0, 3)})


def test_they_come_back_from_json(figures):
    full = replace(
        figures,
        against_none={"rag, k=1": HelpFigures(2, 1, 1.0, 3)},
        sources={"okvqa": {"official": {"none": {"overall": 1.5, "interval": [0.0, 3.0]}}, "left_out": 1}},
        missing_images=Faults(2, [{"data_id": "a", "reason": "image_missing"}]),
        rejected=Faults(1, [{"where": "x.jsonl, line 3", "reason": "no question"}]),
        memory_store=MemoryStoreSize(14, 14_000, 1000.0),
    )
    for original in (figures, full):
        data = original.to_json()
        assert EvaluationFigures.from_json(data) == original
        assert EvaluationFigures.from_json(json.loads(json.dumps(data))) == original


def test_a_report_json_of_before_help_and_harm_is_readable(figures):
    data = figures.to_json()
    del data["against_none"]
    assert EvaluationFigures.from_json(data) == figures


def test_report_json_keeps_its_names(figures):
    data = figures.to_json()
    assert data.keys() == {
        *("questions", "arms", "recall", "recall_by_knowledge", "memory_against_rag"),
        *("against_none", "sources", "missing_images", "rejected", "memory_store"),
    }
    assert data["arms"]["rag, k=1"].keys() == {
        *("mode", "k", "gold_position", "knowledge", "score", "low", "high", "n", "unanswered"),
        *("prompt_tokens", "memory_vectors", "first_token_ms", "answer_ms", "groups"),
    }
    assert data["recall"]["@1"].keys() == {"score", "low", "high", "n"}
    assert data["recall_by_knowledge"].keys() == {"20"}
    assert data["memory_against_rag"]["k=1"] == {"difference": 33.33, "mcnemar_p": 1.0, "n": 3}
    assert data["missing_images"] == {"count": 0, "first": []}
