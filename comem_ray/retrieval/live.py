"""Live vectors: items that were added after the index was built, searched exactly beside it, and items that it lost.

The index stays as it is: a search leaves out the items that were deleted or replaced, and the added items have a flat
array of their own. The result is that of one index of all the items, if the index is exact too.

Letters: B questions, k items per question, N items of the index, n live items, C width. Knows nothing of the journal's
file, of the content of items, of memory or of Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache

import faiss
import numpy as np

from comem_ray.artifacts import ArtifactError
from comem_ray.knowledge.live.journal import Changes, Vectors
from comem_ray.retrieval.embeddings import unit_vectors
from comem_ray.retrieval.index import CACHED_LANGUAGES, TIES, ItemIndex, inner_products
from comem_ray.retrieval.languages import UnknownLanguage, language_tag
from comem_ray.retrieval.subset import Subset


class LiveVectors:
    """The changes up to `seq` to the items of `base`. Never changes: `apply` makes another one.

    `clip` is the fingerprint of the CLIP model, `widths` has the width C of each kind of vector that the base has.
    """

    def __init__(self, base: ItemIndex, clip: str, widths: Mapping[str, int], seq: int = 0):
        self.base, self.seq = base, seq
        self._clip = clip
        self._languages: dict[str, str] = {}  # by id, in the order of the vectors
        self._vectors = {kind: np.empty((0, width), np.float32) for kind, width in widths.items()}
        self._removed = np.empty(0, np.int64)  # positions in the base, ascending
        self._searched = lru_cache(CACHED_LANGUAGES)(self._make_searched)

    def __len__(self) -> int:
        return len(self._languages)

    @property
    def is_empty(self) -> bool:
        """Whether the base alone answers every query."""
        return not len(self) and not len(self._removed)

    def apply(self, changes: Changes) -> LiveVectors:
        """These vectors after `changes`, which are those after `seq`.

        Raises ArtifactError where the vectors of an item do not fit the base.
        """
        if changes.seq == self.seq:
            return self
        for added in changes.added:
            self._refuse_unfit(added)
        changed = {*changes.removed, *(added.item_id for added in changes.added)}
        kept = np.array([item_id not in changed for item_id in self._languages], bool)
        positions = self.base.find(sorted(changed))
        widths = {kind: vectors.shape[1] for kind, vectors in self._vectors.items()}
        after = LiveVectors(self.base, self._clip, widths, changes.seq)
        after._languages = {i: language for i, language in self._languages.items() if i not in changed}
        after._languages |= {added.item_id: added.language for added in changes.added}
        after._removed = np.union1d(self._removed, positions[positions >= 0])
        for kind, vectors in self._vectors.items():
            rows = [unit_vectors(added.vectors[kind][None]) for added in changes.added]
            after._vectors[kind] = np.concatenate([vectors[kept], *rows])
        return after

    def base_items(self, language: str | None) -> Subset | None:
        """The items of the base that a search in `language` is among, None for all of them.

        Raises QueryError if no item, of the base or live, is in `language`.
        """
        return self._searched(language)[0]

    def nearest(self, kind: str, vectors: np.ndarray, k: int, language: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Scores (B, <= k) float32 of the best live items by `kind`, and their rows; equal scores in order of rows."""
        rows = self._searched(language)[1]
        stored = self._vectors[kind] if len(rows) == len(self) else self._vectors[kind][rows]
        if not len(rows) or not len(vectors):
            return np.empty((len(vectors), 0), np.float32), np.empty((len(vectors), 0), np.int64)
        count = min(k + TIES, len(rows))
        scores, ranks = faiss.knn(vectors, stored, count, metric=faiss.METRIC_INNER_PRODUCT)
        order = np.lexsort((ranks, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, order, 1), rows[np.take_along_axis(ranks, order, 1)]

    def scores(self, kind: str, vector: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Scores (n,) float32 of the live items at `rows` for one `vector` (C,)."""
        return inner_products(vector, self._vectors[kind][rows])

    @cached_property
    def ids(self) -> list[str]:
        """The ids of the live items by row."""
        return list(self._languages)

    def _make_searched(self, language: str | None) -> tuple[Subset | None, np.ndarray]:
        """The items of the base and the rows (n,) that a search in `language` is among."""
        if language is None:
            base = self.base.in_language(None).without(self._removed) if len(self._removed) else None
            return base, np.arange(len(self))
        tag, languages = language_tag(language), list(self._languages.values())
        rows = np.array([row for row, other in enumerate(languages) if other == tag], np.int64)
        base = self.base.in_language(language).without(self._removed)
        if not base.count and not len(rows):
            left = np.delete(self.base.languages, self._removed)
            raise UnknownLanguage(language, sorted({code.decode() for code in np.unique(left).tolist()} | {*languages}))
        return base, rows

    def _refuse_unfit(self, added: Vectors) -> None:
        widths = {kind: len(vector) for kind, vector in added.vectors.items()}
        wanted = {kind: vectors.shape[1] for kind, vectors in self._vectors.items()}
        if added.clip != self._clip or any(widths.get(kind) != width for kind, width in wanted.items()):
            raise ArtifactError(
                f"the vectors of live item {added.item_id} were made with the CLIP model {added.clip} ({widths}), "
                f"the index with {self._clip} ({wanted}): run jobs.compact with this configuration, or go back to that "
                "model"
            )


class MergedIndex:
    """An index of one kind and the live vectors of that kind as one index. Live items have the positions from N on."""

    def __init__(self, base: ItemIndex, live: LiveVectors, kind: str):
        self._base, self._live, self._kind, self._size = base, live, kind, len(base.ids)

    def nearest(
        self, vectors: np.ndarray, k: int, language: str | None = None, subset: Subset | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As ItemIndex.nearest. A `subset` is of the base's items, and not for a search with live ones."""
        assert subset is None, "subsets are of an evaluation, which has no live items"
        base_scores, base_positions = self._base.nearest(vectors, k, subset=self._live.base_items(language))
        live_scores, rows = self._live.nearest(self._kind, vectors, k, language)
        scores = np.concatenate([base_scores, live_scores], axis=1)
        positions = np.concatenate([base_positions, rows + self._size], axis=1)
        order = np.lexsort((positions, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)

    def scores(self, vector: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """As ItemIndex.scores, of ascending `positions`."""
        first_live = int(np.searchsorted(positions, self._size))
        live = self._live.scores(self._kind, vector, positions[first_live:] - self._size)
        return np.concatenate([self._base.scores(vector, positions[:first_live]), live])

    def item_id(self, position: int) -> str:
        """The id of the item at a position."""
        return self._base.item_id(position) if position < self._size else self._live.ids[position - self._size]


def merged_indexes(indexes: Mapping[str, ItemIndex], live: LiveVectors) -> dict[str, MergedIndex]:
    """Each of the `indexes` by kind, merged with the live vectors. They must have the items of the live's base."""
    return {kind: MergedIndex(index, live, kind) for kind, index in indexes.items()}
