"""Letters as MRAG-Bench's automatic_extract.py finds them; numbers of options."""

from __future__ import annotations

import pytest

from comem_ray.tasks.rules.choices import letter, number


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("B", "B"),
        (" B.\n", "B"),
        ("B: a dog", None),  # no space behind the letter; the authors would ask GPT
        ("The answer is B", "B"),
        ("(A) is wrong, the answer is (C)", "C"),
        ("A or B", "B"),  # the one that stands last
        ("Not (D). A B", "D"),  # a bracketed letter wins
        ("b", None),
        ("A dog", "A"),  # a quirk of theirs: the article is a letter
        ("'B'", "B"),
        ("B'.", "B"),
        ("B.'", None),  # the full stop is stripped before the quote, so it stays
        (".'B", "B"),
        ("'.B", None),
        ("", None),
        ("E", None),
    ],
)
def test_letter(text, wanted):
    assert letter(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2", "2"),
        (" 2\n", "2"),
        ("(3)", "3"),
        ("2. a tower of 4 floors", "2"),
        ("1: red", "1"),
        ("The answer is 4.", "4"),
        ("Option 3 of them", "3"),
        ("1 or 2", None),
        ("2.5", None),
        ("1995", None),
        ("5", None),
        ("B", None),
        ("", None),
    ],
)
def test_number(text, wanted):
    assert number(text) == wanted
