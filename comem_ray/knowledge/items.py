"""Knowledge items by `item_id` over a finished items/ stage, without loading the store.

Ids are read once, into 24 bytes an item. An item costs one read of the columns asked for, of one row group (32 rows).
Knows nothing of how items are made, nor of retrieval.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from comem_ray.artifacts import ROW_GROUP_ROWS, Manifest, Shard, load_manifest

STAGE = "ingest"
OPEN_FILES = 256
_COLUMNS = ["item_id", "language", "title", "text", "page_url", "image_url", "width", "height"]


class UnknownItem(LookupError, ValueError):
    """An `item_id` that the store does not hold."""


@dataclass(frozen=True)
class Item:
    """One knowledge item. `image` is a JPEG or PNG of `width` x `height` pixels, None where it was not asked for."""

    item_id: str
    language: str
    title: str
    text: str
    page_url: str | None
    image_url: str | None
    image: bytes | None
    width: int
    height: int


def item_shards(manifest: Manifest) -> dict[str, Shard]:
    """The item shard of each unit of an items/ stage, in order; the shards of rejected rows are not among them."""
    return {r.unit: s for r in manifest.records for s in r.shards if s.name == f"{r.unit}.parquet"}


class ItemStore:
    """Random access to the items in `folder`. Threads may share one store.

    Raises ArtifactError where the stage is unfinished.
    """

    def __init__(self, folder: Path):
        shards = item_shards(load_manifest(folder, STAGE)).values()
        self._paths = [folder / s.name for s in shards]
        tables = [_read_ids(path) for path in self._paths]
        self._ids = np.concatenate(tables) if tables else np.empty(0, "S24")
        self._starts = np.cumsum([0, *(len(t) for t in tables)])
        self._order = np.argsort(self._ids, kind="stable")
        self._open: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._lock = Lock()  # a ParquetFile serves one reader at a time

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self._find(item_id) is not None

    @property
    def ids(self) -> list[str]:
        """All ids in the order of the shards."""
        return [i.decode() for i in self._ids.tolist()]

    def get(self, item_ids: Sequence[str], image: bool = True) -> list[Item]:
        """The items in the order asked; without `image` the image's bytes are not read.

        Raises UnknownItem for an id that is not there.
        """
        places = [self._place(item_id) for item_id in item_ids]
        groups = defaultdict(list)
        for shard, row in places:
            groups[shard, row // ROW_GROUP_ROWS].append(row % ROW_GROUP_ROWS)
        columns = [*_COLUMNS, "image"] if image else _COLUMNS
        found: dict[tuple[int, int], Item] = {}
        for (shard, group), rows in groups.items():
            for row, fields in zip(rows, self._read(shard, group, rows, columns), strict=True):
                found[shard, group * ROW_GROUP_ROWS + row] = Item(**{"image": None, **fields})
        return [found[place] for place in places]

    def _place(self, item_id: str) -> tuple[int, int]:
        position = self._find(item_id)
        if position is None:
            raise UnknownItem(f"there is no knowledge item {item_id!r} among the {len(self):,} of the knowledge base")
        shard = int(np.searchsorted(self._starts, position, side="right")) - 1
        return shard, position - int(self._starts[shard])

    def _find(self, item_id: str) -> int | None:
        wanted = np.bytes_(item_id.encode())
        at = int(np.searchsorted(self._ids, wanted, sorter=self._order))
        if at == len(self._ids) or self._ids[self._order[at]] != wanted:
            return None
        return int(self._order[at])

    def _read(self, shard: int, group: int, rows: list[int], columns: list[str]) -> list[dict[str, Any]]:
        with self._lock:
            table = self._file(shard).read_row_group(group, columns=columns, use_threads=False)
        return table.take(rows).to_pylist()

    def _file(self, shard: int) -> pq.ParquetFile:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        if len(self._open) >= OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        self._open[shard] = pq.ParquetFile(self._paths[shard], memory_map=True)
        return self._open[shard]


def _read_ids(path: Path) -> np.ndarray:
    """The ids of a shard, (n,) bytes of fixed width."""
    column = pq.read_table(path, columns=["item_id"])["item_id"].combine_chunks()
    width = pc.max(pc.binary_length(column)).as_py() or 1
    return np.array(column.cast(pa.binary()).to_pylist(), f"S{width}")
