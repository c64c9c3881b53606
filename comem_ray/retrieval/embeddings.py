"""A finished embeddings/ stage, read shard by shard.

Vectors are stored as float16. They are read as float32 and L2-normalised again, so that an inner product is a cosine.
Knows nothing of the model that made them, nor of indexes.

Letters: N items, C width of the CLIP space.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from comem_ray.artifacts import load_manifest
from comem_ray.knowledge.schema import stored_column

STAGE = "embed_items"
KINDS = ("image", "text")


class Embeddings:
    """The embeddings in `folder`. Raises ArtifactError if the stage is unfinished."""

    def __init__(self, folder: Path):
        self.manifest = load_manifest(folder, STAGE)
        self.clip: str = self.manifest.identity["clip"]
        self.width: int = self.manifest.identity["width"]
        self.kinds = KINDS if self.manifest.identity["texts"] else KINDS[:1]
        self._shards = [(folder / s.name, s.rows) for s in self.manifest.shards(".parquet")]

    def __len__(self) -> int:
        return sum(rows for _, rows in self._shards)

    def item_ids(self) -> list[str]:
        """All ids in order (N)."""
        return [i for path, _ in self._shards for i in pq.read_table(path, columns=["item_id"])["item_id"].to_pylist()]

    def blocks(self, kind: str) -> Iterator[np.ndarray]:
        """The vectors of `kind` ("image" or "text"), one (rows, C) float32 array per shard."""
        return (_read(path, kind, self.width) for path, rows in self._shards if rows)

    def rows(self, kind: str, positions: np.ndarray) -> np.ndarray:
        """The vectors (n, C) float32 at ascending `positions`. Only the shards that hold one of them are read."""
        parts, start = [np.empty((0, self.width), np.float32)], 0
        for path, rows in self._shards:
            first, last = np.searchsorted(positions, [start, start + rows])
            if first < last:
                parts.append(_read(path, kind, self.width)[positions[first:last] - start])
            start += rows
        return np.concatenate(parts)


def _read(path: Path, kind: str, width: int) -> np.ndarray:
    column = stored_column(pq.read_schema(path), f"{kind}_embedding")
    flat = pq.read_table(path, columns=[column])[column].combine_chunks().flatten()
    vectors = flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, width)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
