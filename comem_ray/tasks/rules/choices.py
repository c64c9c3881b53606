"""Which option an answer chooses: a letter (MRAG-Bench) or a number (CVQA).

Letters are found as MRAG-Bench does: "(B)" wins over a "B" between spaces, of several the one that stands last. Where
there is none, its authors ask GPT-3.5 to find one; here the answer counts as unparsable and wrong.
Source: eval/utils/automatic_extract.py and eval/score.py of the MRAG-Bench authors (Hu et al. 2024, arXiv 2410.08182).
"""

from __future__ import annotations

import re

LETTERS = "ABCD"
_STRIPPED = ",.!?;:'"
_NUMBER = re.compile(r"(?<![\d.,])[1-4](?![.,]?\d)")
_LEADING = re.compile(r"[(\[]?([1-4])(?:$|[)\]:]|[.,](?!\d))")


def letter(text: str) -> str | None:
    """The letter A-D that `text` chooses, capitals alone; None where there is none."""
    plain = text.strip()
    for mark in _STRIPPED:  # one after another, so that the order matters, as it does there
        plain = plain.strip(mark)
    plain = f" {plain} "
    for pattern in ("({})", " {} "):
        positions = {one: plain.rfind(pattern.format(one)) for one in LETTERS}
        if max(positions.values()) >= 0:
            return max(positions, key=positions.__getitem__)
    return None


def number(text: str) -> str | None:
    """The option "1".."4" that `text` chooses: one it begins with ("2", "(2)", "2. a tower"), or the only one in it."""
    plain = text.strip()
    if leading := _LEADING.match(plain):
        return leading.group(1)
    numbers = set(_NUMBER.findall(plain))
    return numbers.pop() if len(numbers) == 1 else None
