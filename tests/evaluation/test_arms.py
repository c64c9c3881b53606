"""Arms of a configuration, and the items that each puts into the prompt."""

import pytest

from comem_ray.config import EvaluationConfig
from comem_ray.evaluation.arms import Arm, arms, largest_size


def test_arms_of_a_configuration():
    config = EvaluationConfig(questions="q", modes=["none", "memory", "rag"], k=[1, 3], gold_positions=[1, 3])
    assert [arm.name for arm in arms(config)] == [
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


def test_sizes_are_in_the_names_where_arms_differ_in_them():
    config = EvaluationConfig(
        questions="q", modes=["none", "rag"], k=[2], knowledge_sizes=[10, "all", 12, 10], gold_positions=[1]
    )
    assert [(arm.name, arm.knowledge) for arm in arms(config)] == [
        ("none", "all"),
        ("rag, k=2, 10 items", 10),
        ("rag, k=2, all items", "all"),
        ("rag, k=2, 12 items", 12),
        ("rag, k=1, all items, right item at 1", "all"),
    ]
    assert largest_size(config) == "all"
    assert largest_size(EvaluationConfig(questions="q", knowledge_sizes=[10, 12])) == 12


@pytest.mark.parametrize(
    ("arm", "retrieved", "gold", "items"),
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
def test_items_of_an_arm(arm, retrieved, gold, items):
    assert arm.items(list(retrieved), list(gold)) == items
