"""Which earlier files hold the rows that a unit needs, so that a row that is there already is not made again.

Units are cut by position. One row in front moves all others, and one recovered image changes a shard: the rows that
stay the same are then in some shard of the generation before, and are looked up there by `item_id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ID_CHARS = 24
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def files_holding(wanted: Mapping[str, np.ndarray], files: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """For each unit of `wanted` the names in `files` that hold one of its ids, in the order of `files`.

    Both map to ids (n,), bytes of ID_CHARS hex digits. Takes about 40 bytes per id while it runs.
    """
    names = list(files)
    ids = np.concatenate([np.empty(0, f"S{ID_CHARS}"), *files.values()])
    owner = np.repeat(np.arange(len(names)), [len(files[name]) for name in names])
    order = np.argsort(ids, kind="stable")
    ids, owner = ids[order], owner[order]
    holding = {}
    for unit, unit_ids in wanted.items():
        first, last = np.searchsorted(ids, unit_ids, "left"), np.searchsorted(ids, unit_ids, "right")
        owners = {int(n) for a, b in zip(first, last, strict=True) for n in owner[a:b]}
        holding[unit] = [names[n] for n in sorted(owners)]
    return holding


def parquet_ids(path: Path) -> np.ndarray:
    """The column `item_id` of a shard, (n,) bytes; empty if the file cannot be read. A null is an id of zeros."""
    try:
        column = pq.read_table(path, columns=["item_id"])["item_id"]
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return np.empty(0, f"S{ID_CHARS}")
    return np.array([(value or "").encode() for value in column.to_pylist()], f"S{ID_CHARS}")


def hex_ids(identities: np.ndarray) -> np.ndarray:
    """The ids (n,), bytes of hex digits, of their (n, ID_CHARS / 2) uint8 digests."""
    digits = np.empty((len(identities), ID_CHARS), np.uint8)
    digits[:, 0::2], digits[:, 1::2] = _HEX[identities >> 4], _HEX[identities & 15]
    return digits.view(f"S{ID_CHARS}").ravel()
