"""Subsets of the knowledge base that an evaluation searches, to measure what a larger knowledge base costs and gives.

The subset of size n holds the right items of all questions and, in one seeded order, as many of the other items as fit.
So a subset holds every smaller one, it is the same for every question and mode, and the right item can always be found.
The index stays as it is: its search is restricted to the subset (a FAISS ID selector). An approximate index searches
N / n times as far, so that it meets as many items of the subset as it would meet without the restriction.

Letters: N items. Knows nothing of questions or models.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np

from comem_ray.config import ConfigError
from comem_ray.retrieval.index import ItemIndex, Subset


class KnowledgeSubsets:
    """Subsets of the items of `index`, each of them with the `right` items (their ids)."""

    def __init__(self, index: ItemIndex, right: Collection[str], seed: int):
        self._index, self._seed = index, seed
        self._right = np.flatnonzero(np.isin(index.ids, np.array([i.encode() for i in right], dtype="S")))
        self._subsets: dict[tuple[int | str, str | None], Subset] = {}

    def subset(self, size: int | Literal["all"], language: str | None = None) -> Subset:
        """The subset of `size` items, all of `language` where one is given. Raises ConfigError for a wrong size."""
        key = size, language
        if key not in self._subsets:
            self._subsets[key] = self._index.subset(self.positions(size, language))
        return self._subsets[key]

    def positions(self, size: int | Literal["all"], language: str | None = None) -> np.ndarray:
        """Positions (n,) int64 of the subset's items in the index. Raises ConfigError for a wrong size."""
        known = self._index.positions(language)
        if size == "all":
            return known
        right = np.intersect1d(self._right, known, assume_unique=True)
        if not len(right) <= size <= len(known):
            whole = "items" if language is None else f"items of language {language!r}"
            raise ConfigError(
                f"evaluation.knowledge_sizes: {size}, want {len(right)} (the right items of the questions) to "
                f"{len(known)} (all {whole}), or 'all'"
            )
        others = np.setdiff1d(known, right, assume_unique=True)
        order = np.random.default_rng([self._seed, len(others)]).permutation(others)
        return np.concatenate([right, order[: size - len(right)]])
