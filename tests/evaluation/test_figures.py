"""The figures of an evaluation against values worked out by hand, and through report.json."""

import json
from dataclasses import replace

import pytest

from comem_ray.evaluation.figures import (
    EvaluationFigures,
    Faults,
    MemoryStoreSize,
    PairFigures,
    Share,
    compute_figures,
)
from comem_ray.evaluation.intervals import wilson
from comem_ray.evaluation.questions import EvaluationQuestion

QUESTIONS = [EvaluationQuestion(i, "?", None, "exact", ["x"], groups={"fact": fact}) for i, fact in ("aC", "bC", "cR")]
RANKS = (1, 2, 0)


def row(data_id, arm, score, rank, **fields):
    mode = arm.split(",")[0]
    defaults = {"k": 0 if mode == "none" else 1, "gold_position": None, "knowledge": 0 if mode == "none" else 20}
    counts = {"prompt_tokens": 10, "memory_vectors": 0, "fault": None}
    return {"data_id": data_id, "arm": arm, "mode": mode, "score": score, "rank": rank} | defaults | counts | fields


def rows_of(arm, scores, **fields):
    return [row(i, arm, float(s), r, **fields) for i, s, r in zip("abc", scores, RANKS, strict=True)]


@pytest.fixture
def figures():
    rows = rows_of("rag, k=1", (1, 0, 1)) + rows_of("memory, k=1", (1, 1, 1))
    times = [{"data_id": "a", "arm": "rag, k=1", "first_token_ms": ms, "answer_ms": 2 * ms} for ms in (1.0, 5.0, 3.0)]
    return compute_figures(QUESTIONS, rows, times, [1, 3])


def test_figures_by_hand(figures):
    rag = figures.arms["rag, k=1"]
    low, high = (round(100 * end, 2) for end in wilson(2 / 3, 3))
    assert rag.share == Share(66.67, low, high, 3)
    assert (rag.first_token_ms, rag.answer_ms) == (3.0, 6.0)
    assert (rag.mode, rag.k, rag.gold_position, rag.knowledge) == ("rag", 1, None, 20)
    assert rag.groups["fact"]["C"].score == 50
    assert rag.groups["language"]["en"].n == 3
    assert {k: share.score for k, share in figures.recall.items()} == {1: 33.33, 3: 66.67}
    assert figures.recall_by_knowledge == {20: figures.recall}
    assert figures.memory_against_rag == {"k=1": PairFigures(33.33, 1.0, 3)}
    assert figures.arms["memory, k=1"].first_token_ms is None


def test_a_question_that_was_not_asked_counts_as_wrong_and_has_no_tokens():
    asked, missing, long = rows_of("rag, k=1", (1, 0, 0))
    rows = [asked, {**missing, "fault": "image_missing", "prompt_tokens": 0}, {**long, "fault": "prompt_too_long"}]
    arm = compute_figures(QUESTIONS, rows, [], [1]).arms["rag, k=1"]
    assert (arm.share.score, arm.share.n) == (33.33, 3)
    assert arm.unanswered == {"image_missing": 1, "prompt_too_long": 1}
    assert arm.prompt_tokens == 10
    assert compute_figures(QUESTIONS, rows[1:], [], [1]).arms["rag, k=1"].prompt_tokens == 0


def test_recall_is_that_of_the_largest_knowledge():
    rows = rows_of("rag, k=1", (1, 0, 1))
    small = [{**r, "arm": "rag, k=1, 5 items", "knowledge": 5, "rank": 1} for r in rows]
    placed = [{**r, "arm": "rag, k=1, right item at 1", "gold_position": 1, "rank": 1} for r in rows]
    found = compute_figures(QUESTIONS, [*small, *rows, *placed, *rows_of("none", (0, 0, 0))], [], [1])
    assert [size for size, _ in found.recall_by_knowledge.items()] == [20, 5]
    assert (found.recall[1].score, found.recall_by_knowledge[5][1].score) == (33.33, 100)
    unknown = [{**r, "rank": None} for r in rows]
    assert compute_figures(QUESTIONS, unknown, [], [1]).recall == {}


def test_they_come_back_from_json(figures):
    full = replace(
        figures,
        sources={"okvqa": {"official": {"none": {"overall": 1.5, "interval": [0.0, 3.0]}}, "left_out": 1}},
        missing_images=Faults(2, [{"data_id": "a", "reason": "image_missing"}]),
        rejected=Faults(1, [{"where": "x.jsonl, line 3", "reason": "no question"}]),
        memory_store=MemoryStoreSize(14, 14_000, 1000.0),
    )
    for original in (figures, full):
        data = original.to_json()
        assert EvaluationFigures.from_json(data) == original
        assert EvaluationFigures.from_json(json.loads(json.dumps(data))) == original


def test_report_json_keeps_its_names(figures):
    data = figures.to_json()
    assert data.keys() == {
        *("questions", "arms", "recall", "recall_by_knowledge", "memory_against_rag"),
        *("sources", "missing_images", "rejected", "memory_store"),
    }
    assert data["arms"]["rag, k=1"].keys() == {
        *("mode", "k", "gold_position", "knowledge", "score", "low", "high", "n", "unanswered"),
        *("prompt_tokens", "memory_vectors", "first_token_ms", "answer_ms", "groups"),
    }
    assert data["recall"]["@1"].keys() == {"score", "low", "high", "n"}
    assert data["recall_by_knowledge"].keys() == {"20"}
    assert data["memory_against_rag"]["k=1"] == {"difference": 33.33, "mcnemar_p": 1.0, "n": 3}
    assert data["missing_images"] == {"count": 0, "first": []}
