"""The figures of an evaluation against values worked out by hand."""

from comem_ray.evaluation.aggregation import compute_figures
from comem_ray.evaluation.figures import HelpFigures, PairFigures, Share
from comem_ray.evaluation.intervals import wilson
from comem_ray.tasks.example import Example

QUESTIONS = [Example(i, "?", None, "exact", ["x"], groups={"fact": fact}) for i, fact in ("aC", "bC", "cR")]
RANKS = (1, 2, 0)


def row(data_id, arm, score, rank, **fields):
    mode = arm.split(",")[0]
    defaults = {"k": 0 if mode == "none" else 1, "gold_position": None, "knowledge": 0 if mode == "none" else 20}
    counts = {"prompt_tokens": 10, "memory_vectors": 0, "fault": None}
    return {"data_id": data_id, "arm": arm, "mode": mode, "score": score, "rank": rank} | defaults | counts | fields


def rows_of(arm, scores, **fields):
    return [row(i, arm, float(s), r, **fields) for i, s, r in zip("abc", scores, RANKS, strict=True)]


def test_figures_by_hand():
    rows = rows_of("rag, k=1", (1, 0, 1)) + rows_of("memory, k=1", (1, 1, 1))
    times = [{"data_id": "a", "arm": "rag, k=1", "first_token_ms": ms, "answer_ms": 2 * ms} for ms in (1.0, 5.0, 3.0)]
    figures = compute_figures(QUESTIONS, rows, times, [1, 3])
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


def test_help_and_harm_are_counted_against_the_model_alone():
    rows = rows_of("none", (0, 1, 0)) + rows_of("rag, k=1", (1, 0, 1)) + rows_of("memory, k=1", (1, 1, 1))[:2]
    figures = compute_figures(QUESTIONS, rows, [], [1])
    assert figures.against_none == {"rag, k=1": HelpFigures(2, 1, 1.0, 3), "memory, k=1": HelpFigures(1, 0, 1.0, 2)}
    assert compute_figures(QUESTIONS, rows[3:], [], [1]).against_none == {}


def test_a_question_that_was_not_asked_counts_as_wrong_and_has_no_tokens():
    answered, missing, long = rows_of("rag, k=1", (1, 0, 0))
    rows = [answered, {**missing, "fault": "image_missing", "prompt_tokens": 0}, {**long, "fault": "prompt_too_long"}]
    arm = compute_figures(QUESTIONS, rows, [], [1]).arms["rag, k=1"]
    assert (arm.share.score, arm.share.n) == (33.33, 3)
    assert arm.unanswered == {"image_missing": 1, "prompt_too_long": 1}
    assert arm.prompt_tokens == 10
    assert compute_figures(QUESTIONS, rows[1:], [], [1]).arms["rag, k=1"].prompt_tokens == 0


def test_recall_is_that_of_the_largest_knowledge():
    rows = rows_of("rag, k=1", (1, 0, 1))
    small = [{**r, "arm": "rag, k=1, 5 items", "knowledge": 5, "rank": 1} for r in rows]
    placed = [{**r, "arm": "rag, k=1, right item at 1", "gold_position": 1, "rank": 1} for r in rows]
    figures = compute_figures(QUESTIONS, [*small, *rows, *placed, *rows_of("none", (0, 0, 0))], [], [1])
    assert list(figures.recall_by_knowledge) == [20, 5]
    assert (figures.recall[1].score, figures.recall_by_knowledge[5][1].score) == (33.33, 100)
    unknown = [{**r, "rank": None} for r in rows]
    assert compute_figures(QUESTIONS, unknown, [], [1]).recall == {}
