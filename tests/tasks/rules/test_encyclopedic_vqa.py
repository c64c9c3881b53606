"""Exact match of Encyclopedic-VQA: cases worked out by hand from the official script."""

from __future__ import annotations

import pytest

from comem_ray.tasks.rules.scoring import score


@pytest.mark.parametrize(
    ("prediction", "gold", "right"),
    [
        ("The Menger family", "menger family", True),
        ("the answer is: five", "5", True),
        ("True", "yes", True),
        ("1920s", "the 1910s|1920’s", True),
        ("Menger", "menger family", False),
        ("red and blue", "blue&&red", True),
        ("red, green", "red&&blue&&green&&yellow", True),  # 2 of 4
        ("red", "red&&blue&&green", False),  # 1 of 3
        ("red, pink & white", "red&&blue", False),  # 1 of 4
        ("red and blue", "red&&", True),  # a list of one: 1 of 2
        ("red and blue", "red", False),
        ("", "red|", False),
    ],
)
def test_encyclopedic_vqa(prediction, gold, right):
    assert score("encyclopedic_vqa", prediction, gold) == float(right)
