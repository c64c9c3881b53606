"""Embeddings that the items of a shard brought along (a clip_retrieval source), for the stage that embeds the others.

Knows nothing of models: who made the vectors was checked at ingest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from comem_ray.config import ConfigError
from comem_ray.knowledge.schema import DIGEST_BYTES, READY_COLUMNS

Encode = Callable[[list[int]], np.ndarray]
"""Vectors (n, C) of the items at n positions."""


class ReadyEmbeddings:
    """The ready embeddings of an item shard, held as float16 (C,) by item. `item_id in ready`: of its image.

    Raises ConfigError where they are not `width` wide.
    """

    def __init__(self, path: Path, width: int):
        self._width = width
        self._vectors: dict[str, dict[str, np.ndarray]] = {"image": {}, "text": {}}
        schema = pq.read_schema(path)
        for column in (name for name in READY_COLUMNS if name in schema.names):
            if (stored := schema.field(column).type.list_size) != width:
                raise ConfigError(
                    f"{path.name} holds ready embeddings of width {stored}, clip.model makes {width}: name the model "
                    "that made them, or run jobs.ingest again without them"
                )
            table = pq.read_table(path, columns=["item_id", column])
            for item_id, vector in zip(table["item_id"].to_pylist(), table[column], strict=True):
                if vector.is_valid:
                    self._vectors[column.removesuffix("_embedding")][item_id] = vector.values.to_numpy()

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._vectors["image"]

    def content(self, item_id: str, content: bytes) -> bytes:
        """`content`, the digest of an item, changed by its ready embeddings: with others it is to be taken anew."""
        vectors = [ready[item_id].tobytes() for ready in self._vectors.values() if item_id in ready]
        if not vectors:
            return content
        return hashlib.blake2b(content + b"".join(vectors), digest_size=DIGEST_BYTES).digest()

    def completed(self, kind: str, item_ids: Sequence[str], encode: Encode) -> np.ndarray:
        """The vectors (n, C) float32 of items: the ready ones, and those that `encode` makes of the others."""
        ready = self._vectors[kind]
        missing = [n for n, item_id in enumerate(item_ids) if item_id not in ready]
        vectors = np.zeros((len(item_ids), self._width), np.float32)
        if missing:
            vectors[missing] = encode(missing)
        for n, item_id in enumerate(item_ids):
            if item_id in ready:
                vectors[n] = ready[item_id]
        return vectors
