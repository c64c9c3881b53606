"""The parts of the knowledge base that an evaluation searches, to see what a larger one costs and gives.

The part of size n is the right items of all questions and, in one seeded order of the others, as many as are left: so
a part holds every smaller one, the same for every question and mode, and the right item can always be found. The index
stays as it is; its search is told to see these items alone (a FAISS ID selector). An approximate index looks as many
times farther as the part is smaller than the whole, so that it meets as many items of the part as it would without.

Letters: N items. Knows nothing of questions or models.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np

from comem_ray.config import ConfigError
from comem_ray.retrieval.index import ItemIndex, Subset


class Knowledge:
    """Parts of the items of `index` that hold the `right` items (their ids)."""

    def __init__(self, index: ItemIndex, right: Collection[str], seed: int):
        self._index, self._seed = index, seed
        self._right = np.flatnonzero(np.isin(index.ids, np.array([i.encode() for i in right], dtype="S")))
        self._parts: dict[tuple[int | str, str | None], Subset] = {}

    def part(self, size: int | Literal["all"], language: str | None = None) -> Subset:
        """The part of `size` items of `language`, of any where none is given. Raises ConfigError for a wrong size."""
        key = size, language
        if key not in self._parts:
            self._parts[key] = self._index.subset(self._positions(size, language))
        return self._parts[key]

    def _positions(self, size: int | Literal["all"], language: str | None) -> np.ndarray:
        known = self._index.positions(language)
        if size == "all":
            return known
        right = np.intersect1d(self._right, known, assume_unique=True)
        if not len(right) <= size <= len(known):
            of = "items" if language is None else f"items of language {language!r}"
            raise ConfigError(
                f"evaluation.knowledge_sizes: {size}, want {len(right)} (the right items of the questions) to "
                f"{len(known)} (all {of}), or 'all'"
            )
        others = np.setdiff1d(known, right, assume_unique=True)
        order = np.random.default_rng([self._seed, len(others)]).permutation(others)
        return np.concatenate([right, order[: size - len(right)]])
