"""The paper's authors' own scorer, on cases worked out from their normalize_answer."""

from __future__ import annotations

import pytest

from comem_ray.tasks.rules import paper


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Paris", ""),  # cut at the "is" in it
        ("Tunis", ""),
        ("The answer is London.", "london"),
        ("Bank of England", "england"),
        ("Ruby", ""),
        ("written by Homer", "homer"),
        ("Athens", "ns"),
        ("this isle", "le"),
        ("a red   car", "red car"),
        ("I-s-l-a-m", "lam"),  # punctuation goes first
    ],
)
def test_answers_are_cut_inside_words(text, wanted):
    assert paper.normalised(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"Final answer: \boxed{red} or \boxed{blue}", "red"),  # the first box
        (r"\boxed{\text{red}}", r"textred"),  # up to the first closing brace
        ("Final answer: red", "red"),
        ("red", "red"),
        ("a: b: red", "red"),
    ],
)
def test_the_answer_in_a_text(text, wanted):
    assert paper.answer(text) == wanted


def test_golds_are_not_normalised():
    assert paper.equals_one("Red", [" red "])
    assert not paper.equals_one("Red", ["Red"])


def test_times_hold_one_another():
    assert paper.time_matches("in 1878", "1878")
    assert paper.time_matches("18", "1878")
    assert not paper.time_matches("", "1878")
    assert not paper.time_matches("1878", "")
