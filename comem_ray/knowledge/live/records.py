"""How the journal keeps a live item: a record of plain columns and of blobs, each sealed with a digest.

The digest covers the item's id and the name of the blob, so a damaged blob is known when it is read, and so is one of
another item. Knows no database.

Letters: C width of the CLIP space, Q queries (8), D model width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from comem_ray.knowledge.items import Item
from comem_ray.knowledge.live.items import ITEM_ID, LiveItem

KINDS = ("image", "text")
DIGEST_BYTES = 8
_FIELDS = ("language", "title", "text", "page_url", "image_url", "width", "height")

Record = dict[str, Any]
"""The columns of a change, but for its sequence numbers."""


class SealError(ValueError):
    """A blob that is not what was written. The message says which one."""


def item_record(item: LiveItem) -> Record:
    """The record of an item that is put. Raises ValueError for vectors or memory of another shape than a LiveItem's."""
    content, memory = item.content.item, item.memory
    if content.image is None or "image" not in item.vectors or not set(item.vectors) <= set(KINDS):
        raise ValueError(f"item {content.item_id}: want an image, and vectors of 'image' and 'text'")
    if memory.dtype != np.int16 or memory.ndim != 2 or not memory.size:
        raise ValueError(f"item {content.item_id}: want memory (Q, D) int16, got {memory.shape} {memory.dtype}")
    fields = json.dumps({name: getattr(content, name) for name in _FIELDS})
    blobs = {
        "content": fields.encode(),
        "image": content.image,
        "memory": memory.astype("<i2").tobytes(),
        **{f"{kind}_vector": _vector_bytes(content.item_id, vector) for kind, vector in item.vectors.items()},
    }
    return {
        **_empty(content.item_id),
        "language": content.language,
        "clip": item.clip,
        "encoder": item.encoder,
        "queries": len(memory),
        **{name: _seal(content.item_id, name, data) for name, data in blobs.items()},
    }


def deletion_record(item_id: str) -> Record:
    """The record of an item that is deleted."""
    return {**_empty(item_id), "deleted": 1, "content": _seal(item_id, "deleted", b"")}


def check_record(record: Mapping[str, Any]) -> None:
    """Reads every blob of a record. Raises SealError."""
    if record["deleted"]:
        _open(record, "content", "deleted")
        return
    if read_item(record).language != record["language"]:
        raise SealError(f"the language of item {record['item_id']} is not what was written")
    read_vectors(record)
    read_memory(record)


def read_item(record: Mapping[str, Any], image: bool = True) -> Item:
    """The item of a record, without `image` its image is None. Raises SealError."""
    fields = json.loads(_open(record, "content"))
    data = _open(record, "image") if image else None
    return Item(item_id=record["item_id"], image=data, **fields)


def read_vectors(record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The vectors of a record by kind, each (C,) float32. Raises SealError."""
    kinds = KINDS if record["text_vector"] is not None else KINDS[:1]
    stored = {kind: _open(record, f"{kind}_vector") for kind in kinds}
    return {kind: np.frombuffer(data, "<f2").astype(np.float32) for kind, data in stored.items()}


def read_memory(record: Mapping[str, Any]) -> np.ndarray:
    """The memory (Q, D) int16 of a record. Raises SealError."""
    data, queries = _open(record, "memory"), record["queries"]
    if not isinstance(queries, int) or queries < 1 or len(data) % (2 * queries):
        message = f"the memory of item {record['item_id']} has {len(data):,} bytes for {queries} queries"
        raise SealError(message)
    return np.frombuffer(data, "<i2").astype(np.int16).reshape(queries, -1)


def _empty(item_id: str) -> Record:
    if not ITEM_ID.fullmatch(item_id):
        raise ValueError(f"an item_id has 24 hex digits (0-9, a-f), got {item_id[:50]!r}")
    columns = ("language", "clip", "encoder", "queries", "image_vector", "text_vector", "content", "memory", "image")
    return {"item_id": item_id, "deleted": 0, **dict.fromkeys(columns)}


def _vector_bytes(item_id: str, vector: np.ndarray) -> bytes:
    if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
        raise ValueError(f"item {item_id}: want a vector (C,) of finite numbers that are not all 0")
    return vector.astype("<f2").tobytes()


def _seal(item_id: str, name: str, data: bytes) -> bytes:
    return _digest(item_id, name, data) + data


def _open(record: Mapping[str, Any], column: str, name: str | None = None) -> bytes:
    """The bytes in a column of a record, checked."""
    sealed = record[column]
    data = sealed[DIGEST_BYTES:] if isinstance(sealed, bytes) else b""
    if not isinstance(sealed, bytes) or sealed[:DIGEST_BYTES] != _digest(record["item_id"], name or column, data):
        raise SealError(f"the {column.replace('_', ' ')} of item {record['item_id']} is not what was written")
    return data


def _digest(item_id: str, name: str, data: bytes) -> bytes:
    digest = hashlib.blake2b(f"{item_id} {name} ".encode(), digest_size=DIGEST_BYTES)
    digest.update(data)
    return digest.digest()
