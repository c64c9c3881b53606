"""The interval of a share, and the test of a pair. Shares are in 0..1 here; callers make percentages of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z_95 = 1.959964


def wilson(share: float, n: int, z: float = Z_95) -> tuple[float, float]:
    """Low and high end of the 95% interval of a share of `n` trials (Wilson 1927); (0, 1) for no trial."""
    if n == 0:
        return 0.0, 1.0
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """p of McNemar's exact two-sided test: is `first` right more often than `second` on the same questions, or less?

    Only questions that exactly one of the two got right count: p is that of a fair coin (McNemar 1947).
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    n, fewer = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(fewer + 1)) / 2**n) if n else 1.0
