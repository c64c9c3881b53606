"""Arms, intervals and tables against values worked out by hand."""

import pytest

from comem_ray.config import EvaluationConfig
from comem_ray.evaluation.arms import Arm, arms
from comem_ray.evaluation.evaluator import rank
from comem_ray.evaluation.figures import figures, markdown
from comem_ray.evaluation.intervals import mcnemar, wilson
from comem_ray.evaluation.questions import EvaluationQuestion


def test_arms_of_a_configuration():
    found = arms(EvaluationConfig(questions="q", modes=["none", "memory", "rag"], k=[1, 3], gold_positions=[1, 3]))
    assert [a.name for a in found] == [
        "none",
        "memory, k=1",
        "memory, k=3",
        "rag, k=1",
        "rag, k=3",
        "memory, k=3, right item at 1",
        "memory, k=3, right item at 3",
        "rag, k=3, right item at 1",
        "rag, k=3, right item at 3",
    ]


@pytest.mark.parametrize(
    ("arm", "retrieved", "gold", "want"),
    [
        (Arm("none", 0), "abcd", "b", []),
        (Arm("rag", 3), "abcd", "b", ["a", "b", "c"]),
        (Arm("rag", 10), "abcd", "", ["a", "b", "c", "d"]),
        (Arm("memory", 3, 1), "abcd", "b", ["b", "a", "c"]),
        (Arm("memory", 3, 3), "abcd", "b", ["a", "c", "b"]),
        (Arm("memory", 3, 2), "abcd", "z", ["a", "z", "b"]),  # the right item need not be retrieved
        (Arm("memory", 3, 2), "abcd", "", None),
    ],
)
def test_items_of_an_arm(arm, retrieved, gold, want):
    assert arm.items(list(retrieved), list(gold)) == want


def test_rank():
    assert [rank(list("abc"), gold) for gold in (["b"], ["z"], [], ["c", "a"])] == [2, 0, None, 1]


def test_wilson_against_published_values():
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: 81/263, 15/148, 0/20, 1/29.
    for hits, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(hits / n, n) == pytest.approx((low, high), abs=1e-4)


def test_mcnemar_is_the_sign_test_of_the_discordant_pairs():
    first, second = [True] * 9 + [False] * 1 + [True] * 20, [False] * 9 + [True] * 1 + [True] * 20
    assert mcnemar(first, second) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar([True, False], [True, False]) == 1


def row(data_id, arm, mode, score, rank, tokens=10):
    return {"data_id": data_id, "arm": arm, "mode": mode, "score": score, "rank": rank, "prompt_tokens": tokens} | {
        "memory_vectors": 0,
        "k": 1,
        "gold_position": None,
    }


def test_figures_by_hand():
    questions = [EvaluationQuestion(i, "?", None, "exact", ["x"], groups={"fact": f}) for i, f in ("aC", "bC", "cR")]
    scores = {"rag, k=1": (1, 0, 1), "memory, k=1": (1, 1, 1)}
    rows = [
        row(i, arm, arm.split(",")[0], float(s), r)
        for arm, some in scores.items()
        for i, s, r in zip("abc", some, (1, 2, 0), strict=True)
    ]
    times = [{"data_id": "a", "arm": "rag, k=1", "first_token_ms": ms, "answer_ms": 2 * ms} for ms in (1.0, 5.0, 3.0)]
    found = figures(questions, rows, times, [1, 3])
    rag = found["arms"]["rag, k=1"]
    assert (rag["score"], rag["n"], rag["first_token_ms"], rag["answer_ms"]) == (66.67, 3, 3.0, 6.0)
    assert (rag["mode"], rag["k"], rag["gold_position"]) == ("rag", 1, None)
    assert rag["groups"]["fact"]["C"]["score"] == 50
    assert rag["groups"]["language"]["en"]["n"] == 3
    assert found["recall"]["@1"]["score"] == 33.33
    assert found["recall"]["@3"]["score"] == 66.67
    assert found["memory_against_rag"]["k=1"] == {"difference": 33.33, "mcnemar_p": 1.0, "n": 3}
    text = markdown(found)
    assert "| memory, k=1 | 100.0 (43.9 to 100.0) | 3 |" in text  # 3 of 3: 0.4385
    assert "| by fact | C | R |" in text
