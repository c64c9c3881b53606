"""Means in percent with 95% intervals: percentiles of 1000 bootstrap resamples of the questions, seeded.

A resample of n questions is drawn as the counts of their distinct scores, which is the same distribution and needs no
n x 1000 draws. A harmonic mean is resampled too: each of its parts on its own, then combined. The seed of a figure is
the name of what it is about, so that figures do not depend on which others are asked for.
Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (the percentile interval).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES, LEVEL, SEED = 1000, 0.95, 0
BOOTSTRAP = {"resamples": RESAMPLES, "level": LEVEL, "seed": SEED}
_NOTHING = 1e-12  # what the official scripts put for a zero in a harmonic mean


@dataclass(frozen=True)
class Estimate:
    """A figure in percent, and the same figure of every resample."""

    value: float
    draws: np.ndarray  # (RESAMPLES,)

    def summary(self) -> dict[str, Any]:
        """The figure and its interval, to two decimals: {"score": 45.0, "interval": [35.0, 55.0]}."""
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(self.draws, [tail, 1 - tail])
        return {"score": round(self.value, 2), "interval": [round(float(low), 2), round(float(high), 2)]}


def mean_of(scores: Sequence[float], name: str, percent_first: bool = False) -> Estimate:
    """The mean of `scores` (0..1), one at least, in percent.

    Official scripts differ in when they multiply by 100, which shows in the second decimal (23 of 160: 14.37 or 14.38).
    """
    distinct, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
    drawn = generator(name).multinomial(len(scores), counts / len(scores), size=RESAMPLES)
    value = 100 * sum(scores) / len(scores) if percent_first else sum(scores) / len(scores) * 100
    return Estimate(value, drawn @ distinct * (100 / len(scores)))


def rounded(estimate: Estimate) -> Estimate:
    """The same with its value to two decimals, as the official scripts combine them."""
    return Estimate(round(estimate.value, 2), estimate.draws)


def harmonic(*parts: Estimate) -> Estimate:
    """The harmonic mean; a part that is zero counts as 1e-12."""
    inverse = sum(1.0 / (part.value if part.value != 0 else _NOTHING) for part in parts)
    draws = np.stack([part.draws for part in parts])
    inverses = (1.0 / np.where(draws == 0, _NOTHING, draws)).sum(axis=0)
    return Estimate(len(parts) / inverse, len(parts) / inverses)


def groups_of(rows: Iterable[tuple[dict[str, str], float]]) -> dict[str, dict[str, list[float]]]:
    """Scores by kind of group and by its name: {"split": {"val_unseen_question": [...]}}, names in order."""
    named_scores: dict[str, dict[str, list[float]]] = {}
    for groups, score in rows:
        for kind, name in groups.items():
            named_scores.setdefault(kind, {}).setdefault(name, []).append(score)
    return {kind: dict(sorted(named.items())) for kind, named in named_scores.items()}


def group_summaries(groups: dict[str, dict[str, list[float]]], percent_first: bool = False) -> dict[str, Any]:
    """{"per_split": {name: {"score", "interval", "n"}}} for every kind of group."""
    return {
        f"per_{kind}": {
            name: {**mean_of(scores, f"{kind} {name}", percent_first).summary(), "n": len(scores)}
            for name, scores in named.items()
        }
        for kind, named in groups.items()
    }


def generator(name: str) -> np.random.Generator:
    """The random numbers for the figure called `name`."""
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])
