"""InfoSeek's rule for numbers: a number must lie in the gold range, an interval inside it or overlap it by half.

Numbers are taken out of the text as the official script does, quirks kept, so that figures can be compared:

- the first two numbers count; two that ascend are an interval, of two that descend the first is the answer;
- a text without a number counts as the interval 0 to 0;
- limits that descend, as 10% about a negative number do, hold no number, but an interval can overlap them;
- a hyphen behind a digit separates ("9-10" is an interval), any other is a sign; commas before three digits are
  dropped ("1,200"), and a point in front is too (".5" is 5).

Source: infoseek_eval.py of the InfoSeek authors (Chen et al. 2023, arXiv 2302.11713).
"""

from __future__ import annotations

import re

_NUMBER = re.compile(r"[-+]?\.?\d+(?:,\d{3})*\.?\d*(?:[eE][-+]?\d+)?")
_TINY = 1e-12  # the official script's guard, which also decides at an overlap of exactly one half


def in_range_score(prediction: str, low: float, high: float) -> float:
    """1 where the number or interval in `prediction` is right for the gold range `low`..`high`, else 0."""
    first, last = predicted_range(prediction)
    if low <= first <= high and low <= last <= high:
        return 1.0
    return float(overlap(first, last, low, high) >= 0.5 - _TINY)  # 0 for a single number


def has_number(text: str) -> bool:
    """Whether the rule finds a number in `text`."""
    return _NUMBER.search(text) is not None


def predicted_range(text: str) -> tuple[float, float]:
    """The interval that `text` says, ascending; both ends are the same for a single number."""
    numbers = [_value(match) for match in _NUMBER.findall(_hyphens_apart(text))][:2]
    if not numbers:
        return 0.0, 0.0
    return (numbers[0], numbers[1]) if len(numbers) == 2 and numbers[0] <= numbers[1] else (numbers[0], numbers[0])


def overlap(low: float, high: float, other_low: float, other_high: float) -> float:
    """Intersection over union of two intervals, 0..1; the limits of the other in either order."""
    other_low, other_high = sorted((other_low, other_high))  # 10% about a negative number: [-0.9, -1.1]
    shared = max(0.0, min(high, other_high) - max(low, other_low))
    return shared / ((high - low + _TINY) + (other_high - other_low + _TINY) - shared)


def _hyphens_apart(text: str) -> str:
    """White space around hyphens behind a digit, superscripts and the like among them ("m²-5" is 5, not -5)."""
    return "".join(" - " if c == "-" and i and text[i - 1].isdigit() else c for i, c in enumerate(text))


def _value(match: str) -> float:
    plain = match.replace(",", "").strip(".")
    if plain.count(".") > 1:  # "-.5.3", at which the official script fails
        plain = plain[: plain.rfind(".")]
    return float(plain)
