"""The memory store: memory (Q, D) bfloat16 of every item, read at random by `item_id` without loading the store.

There is one memory-mapped safetensors file per item shard, rows in the order of the item shard: `memory` (n, Q, D)
bfloat16, `item_ids` (n, 24) uint8 (the hex digits) and `contents` (n, 16) uint8 (knowledge.schema.content_digest).
BENCHMARKS.md has the figures that speak for safetensors.

Knows the fingerprint of the encoder that made it, but not how memory is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from comem_ray.artifacts import ArtifactError, Manifest, OpenStage, load_manifest, write_atomic
from comem_ray.knowledge.schema import DIGEST_BYTES

STAGE = "encode_memory"
ID_CHARS = 24
EXPONENT = np.int16(0x7F80)  # the bits of a bfloat16 that hold its exponent
CHECKED = 64  # items checked together: what fits the cache
OPEN_SHARDS = 4_096  # a mapping costs address space, not memory


def write_memory(path: Path, item_ids: Sequence[str], contents: Sequence[bytes], memory: Tensor) -> None:
    """Writes a shard atomically: `memory` (n, Q, D) bfloat16 of n `item_ids`, with the digests of their contents.

    Raises ValueError for other shapes.
    """
    if memory.dtype != torch.bfloat16 or memory.ndim != 3 or not len(memory) == len(item_ids) == len(contents):
        raise ValueError(
            f"want (items, Q, D) bfloat16 of {len(item_ids)} items, got {tuple(memory.shape)} {memory.dtype}"
        )
    tensors = {
        "memory": memory.contiguous(),
        "item_ids": _byte_rows(_id_bytes(item_ids), ID_CHARS),
        "contents": _byte_rows(np.array(contents, f"V{DIGEST_BYTES}"), DIGEST_BYTES),
    }
    write_atomic(path, lambda p: save_file(tensors, p))


def _byte_rows(values: np.ndarray, width: int) -> Tensor:
    return torch.from_numpy(values.view(np.uint8).reshape(len(values), width).copy())


def memory_ids(path: Path) -> np.ndarray:
    """The item ids (n,), bytes, of a shard; empty if it cannot be read."""
    try:
        return _read_ids(path)
    except ArtifactError:
        return np.empty(0, f"S{ID_CHARS}")


def earlier_memory(path: Path, contents: Mapping[str, bytes]) -> dict[str, Tensor]:
    """Memory (Q, D), by id, of the items of a shard whose content is the same: `contents` has the digests wanted.

    Empty for a shard of version 0.2, which has no digests.
    """
    with safe_open(path, framework="pt") as f:
        if "contents" not in f.keys():  # noqa: SIM118 (not a dict)
            return {}
        digests, memory = f.get_tensor("contents").numpy(), f.get_tensor("memory")
    ids = [item_id.decode() for item_id in _read_ids(path).tolist()]
    return {i: memory[row] for row, i in enumerate(ids) if contents.get(i) == digests[row].tobytes()}


def store_bytes(folder: Path) -> dict[str, float]:
    """{"items", "bytes", "bytes_per_item"} of a finished stage `encode_memory`, by the sizes of its files."""
    shards = load_manifest(folder, STAGE).shards(".safetensors")
    items, size = sum(s.rows for s in shards), sum(s.bytes for s in shards)
    return {"items": items, "bytes": size, "bytes_per_item": round(size / max(1, items), 1)}


def refuse_other_encoder(folder: Path, manifest: Manifest, fingerprint: str) -> None:
    """Raises ArtifactError where an encoder of another fingerprint made the memory in `folder`."""
    made_by = manifest.identity["encoder"]
    if made_by != fingerprint:
        raise ArtifactError(
            f"the memory in {folder} was made by encoder {made_by[:12]}, this one is {fingerprint[:12]} "
            "(another backbone, adapter, pixel limit or prompt): run jobs.encode_memory with this configuration "
            "into another root, or use the configuration that made it"
        )


class MemoryStore:
    """Memory by `item_id`, of a finished stage `encode_memory`, as it is when it is opened.

    A shard is checked when it is first read: its bytes against its digest, its numbers for NaN and infinity. Raises
    ArtifactError if an encoder of another fingerprint made the store, or if a shard is damaged.
    """

    def __init__(self, folder: Path, fingerprint: str, generation: str | None = None):
        self._stage = OpenStage(folder, STAGE, generation)
        self.manifest = self._stage.manifest
        refuse_other_encoder(folder, self.manifest, fingerprint)
        shards = self.manifest.shards(".safetensors")
        tables = [_read_ids(folder / shard.name) for shard in shards]
        ids = np.concatenate(tables) if tables else np.empty(0, f"S{ID_CHARS}")
        shard = np.repeat(np.arange(len(tables), dtype=np.int32), [len(t) for t in tables])
        row = np.concatenate([np.arange(len(t), dtype=np.int32) for t in tables] or [np.empty(0, np.int32)])
        order = np.argsort(ids, kind="stable")
        self._ids, self._shard, self._row = ids[order], shard[order], row[order]
        self._memory = lru_cache(OPEN_SHARDS)(lambda i: _OpenShard(self._stage.path(shards[i])))

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: str) -> bool:
        return bool(self._positions([item_id])[0] >= 0)

    def missing(self, item_ids: Sequence[str]) -> list[str]:
        """Those of `item_ids` that the store does not hold, in their order."""
        return [i for i, position in zip(item_ids, self._positions(item_ids), strict=True) if position < 0]

    def get(self, item_ids: Sequence[str]) -> Tensor:
        """Memory (K, Q, D), bfloat16, in the order of `item_ids`.

        Raises KeyError naming an item it does not hold, ArtifactError where a shard is damaged.
        """
        positions = self._positions(item_ids)
        if (positions < 0).any():
            raise KeyError(f"the store holds no memory of item {item_ids[int(np.argmax(positions < 0))]!r}")
        rows = [self._memory(int(self._shard[p])).read(int(self._row[p]), self._ids[p]) for p in positions]
        return torch.stack(rows) if rows else torch.empty(0, 0, 0, dtype=torch.bfloat16)

    def get_stored(self, item_ids: Sequence[str]) -> dict[str, Tensor]:
        """Memory (Q, D), bfloat16, by id, of those of `item_ids` that the store holds."""
        absent = set(self.missing(item_ids))
        stored = [i for i in item_ids if i not in absent]
        return dict(zip(stored, self.get(stored), strict=True))

    def _positions(self, item_ids: Sequence[str]) -> np.ndarray:
        """Position (n,) int64 of each id in the sorted table, -1 if the table lacks it."""
        ids = _id_bytes(item_ids)
        positions = np.searchsorted(self._ids, ids)
        matches = np.zeros(len(ids), bool)
        inside = positions < len(self._ids)
        matches[inside] = self._ids[positions[inside]] == ids[inside]
        return np.where(matches, positions, -1)


def stack_memory(item_ids: Sequence[str], *parts: Mapping[str, Tensor]) -> Tensor:
    """Memory (K, Q, D) in the order of `item_ids`, each (Q, D) from the first of `parts` that holds it."""
    rows = {item_id: row for part in reversed(parts) for item_id, row in part.items()}
    return torch.stack([rows[i] for i in item_ids]) if item_ids else torch.empty(0, 0, 0, dtype=torch.bfloat16)


def _id_bytes(item_ids: Sequence[str]) -> np.ndarray:
    # The store has no id of another length. One longer than ID_CHARS would be cut, and might then match.
    return np.array([i.encode() if len(i) == ID_CHARS else b"" for i in item_ids], dtype=f"S{ID_CHARS}")


def _read_ids(path: Path) -> np.ndarray:
    try:
        with safe_open(path, framework="np") as f:
            return f.get_tensor("item_ids").reshape(-1).view(f"S{ID_CHARS}")
    except (OSError, SafetensorError, ValueError) as error:
        message = f"{path} is missing or damaged ({error}). Run the stage '{STAGE}' again: it makes this file again"
        raise ArtifactError(message) from error


class _OpenShard:
    """A mapped shard. Raises ArtifactError if a number in it is not finite."""

    def __init__(self, path: Path):
        self._path, self._ids = path, _read_ids(path)
        self._memory = safe_open(path, framework="pt").get_slice("memory")
        if infinite := [row for start in range(0, len(self._ids), CHECKED) for row in self._infinite(start)]:
            first = self._ids[infinite[0]].decode()
            raise ArtifactError(
                f"{path} holds memory that is not finite, of {len(infinite)} items, the first is {first}: delete the "
                f"file, set backbone.precision to bfloat16 or float32, and run the stage '{STAGE}' again"
            )

    def _infinite(self, start: int) -> list[int]:
        """Rows from `start` on, CHECKED of them, that hold NaN or infinity: a number whose exponent is all ones."""
        bits = self._memory[start : start + CHECKED].view(torch.int16).numpy() & EXPONENT
        if bits.max() < EXPONENT:  # several times as fast as torch.isfinite
            return []
        return (start + np.flatnonzero((bits == EXPONENT).any(axis=(1, 2)))).tolist()

    def read(self, row: int, item_id: bytes) -> Tensor:
        if self._ids[row] != item_id:
            raise ArtifactError(
                f"{self._path} holds another item than {item_id.decode()} in row {row}: it changed while it was open. "
                f"Run the stage '{STAGE}' again, and open it again"
            )
        memory: Tensor = self._memory[row]
        return memory
