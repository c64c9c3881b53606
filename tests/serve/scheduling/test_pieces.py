"""A piece of an answer is passed on once, however often the answer is begun."""

from __future__ import annotations

import pytest

from serve.scheduling.pieces import Pieces


def passed_on(*tries: str) -> tuple[list[str], bool]:
    """What is passed on of tries at one answer, letter by letter, and whether the last differs from it."""
    sent: list[str] = []
    pieces = Pieces(sent.append)
    for text in tries:
        for end in range(len(text) + 1):
            pieces.update(text[:end])
    return sent, pieces.differs


@pytest.mark.parametrize(
    ("tries", "sent", "differs"),
    [
        (["Paris"], "Paris", False),
        (["Par", "Paris"], "Paris", False),
        (["", "Par", "P", "Paris"], "Paris", False),
        (["Par", "London"], "Par", True),
        (["Par", "Pa"], "Par", True),
        (["Par", ""], "Par", True),
    ],
)
def test_each_letter_is_passed_on_once(tries: list[str], sent: str, differs: bool) -> None:
    letters, other = passed_on(*tries)
    assert "".join(letters) == sent
    assert other is differs
