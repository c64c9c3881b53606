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

from comem_ray.artifacts import ArtifactError, OpenStage
from comem_ray.knowledge.schema import stored_column

STAGE = "embed_items"
KINDS = ("image", "text")


class Embeddings:
    """The embeddings in `folder`, as they are when it is opened.

    A shard is checked against its digest when it is first read. Raises ArtifactError if the stage is unfinished, or if
    a shard is damaged.
    """

    def __init__(self, folder: Path):
        self._stage = OpenStage(folder, STAGE)
        self.manifest = self._stage.manifest
        self.clip: str = self.manifest.identity["clip"]
        self.width: int = self.manifest.identity["width"]
        self.kinds = KINDS if self.manifest.identity["texts"] else KINDS[:1]
        self._shards = self.manifest.shards(".parquet", folder="")

    def __len__(self) -> int:
        return sum(shard.rows for shard in self._shards)

    def item_ids(self) -> list[str]:
        """All ids in order (N)."""
        paths = [self._stage.path(shard) for shard in self._shards]
        return [i for path in paths for i in pq.read_table(path, columns=["item_id"])["item_id"].to_pylist()]

    def blocks(self, kind: str) -> Iterator[np.ndarray]:
        """The vectors of `kind` ("image" or "text"), one (rows, C) float32 array per shard."""
        return (_read(self._stage.path(shard), kind, self.width) for shard in self._shards if shard.rows)

    def rows(self, kind: str, positions: np.ndarray) -> np.ndarray:
        """The vectors (n, C) float32 at ascending `positions`. Only the shards that hold one of them are read."""
        parts, start = [np.empty((0, self.width), np.float32)], 0
        for shard in self._shards:
            first, last = np.searchsorted(positions, [start, start + shard.rows])
            if first < last:
                vectors = _read(self._stage.path(shard), kind, self.width)
                parts.append(vectors[positions[first:last] - start])
            start += shard.rows
        return np.concatenate(parts)


def _read(path: Path, kind: str, width: int) -> np.ndarray:
    column = stored_column(pq.read_schema(path), f"{kind}_embedding")
    flat = pq.read_table(path, columns=[column])[column].combine_chunks().flatten()
    vectors = flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, width)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (unusable := ~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0)).any():
        row = int(np.argmax(unusable))
        item_id = pq.read_table(path, columns=["item_id"])["item_id"][row].as_py()
        what = "is all zeros" if norms[row] == 0 else "is not finite"
        raise ArtifactError(
            f"{path}: the {kind} embedding of item {item_id} {what} ({int(unusable.sum())} of {len(vectors)} in this "
            f"file). Delete the file and run the stage '{STAGE}' again"
        )
    return vectors / norms


def stored_vectors(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, C) as shards keep them: float16."""
    return vectors.astype(np.float16)


def unit_vectors(stored: np.ndarray) -> np.ndarray:
    """Vectors (n, C) of shards as an index holds them: float32, of length 1 again after the rounding."""
    vectors = stored.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
