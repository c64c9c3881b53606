"""The rule `sentence`: what follows the last "is" counts."""

from __future__ import annotations

import pytest

from examples.countries.world.scoring import sentence_score


@pytest.mark.parametrize(
    ("prediction", "right"),
    [
        ("The capital of Bulgaria is Sofia.", 1),
        ("Sofia", 1),
        ("sofia is the capital", 0),
        ("The capital of Bulgaria is New Sofia.", 0),
        ("The capital of Sofia is Plovdiv.", 0),
        ("This is Sofia, which is the Sofia.", 1),  # an article does not count
    ],
)
def test_the_fact_of_a_sentence(prediction, right):
    assert sentence_score(prediction, ["Sofia"]) == right
