"""Knowledge items by `item_id`, of a finished items/ stage, without loading the store.

The ids are read once and take 24 bytes per item. One item costs one read of the needed columns of one row group (32
rows). Knows nothing of how items are made, nor of retrieval.
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

from comem_ray.artifacts import ROW_GROUP_ROWS, ArtifactError, Manifest, OpenStage, Shard
from comem_ray.knowledge.schema import current_columns, stored_column

STAGE = "ingest"
OPEN_FILES = 256
_COLUMNS = ["item_id", "language", "title", "text", "page_url", "image_url", "width", "height"]


class UnknownItem(LookupError, ValueError):
    """An `item_id` that the store does not hold."""


@dataclass(frozen=True)
class Item:
    """One knowledge item. `image` is a JPEG or PNG of `width` x `height` pixels, None if it was not read."""

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
    """The item shard of each unit of an items/ stage, in order, without the shards of rejected rows."""
    return {r.unit: s for r in manifest.records if (s := r.shard(f"{r.unit}.parquet")) is not None}


class ItemStore:
    """Random access to the items in `folder`, as they are when it is opened (or as they were, in a `generation` that
    somebody still reads). Threads may share one store.

    A shard is checked against its digest when it is first read. Raises ArtifactError if the stage is unfinished, or if
    a shard is damaged.
    """

    def __init__(self, folder: Path, generation: str | None = None):
        self._stage = OpenStage(folder, STAGE, generation)
        self._shards = list(item_shards(self.manifest).values())
        tables = [_read_ids(folder / shard.name) for shard in self._shards]
        self._ids = np.concatenate(tables) if tables else np.empty(0, "S24")
        self._starts = np.cumsum([0, *(len(t) for t in tables)])
        self._order = np.argsort(self._ids, kind="stable")
        self._open: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._lock = Lock()  # a ParquetFile serves one reader at a time

    @property
    def manifest(self) -> Manifest:
        """The manifest of the generation that is open."""
        return self._stage.manifest

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self._find(item_id) is not None

    @property
    def ids(self) -> list[str]:
        """All ids in the order of the shards."""
        return [i.decode() for i in self._ids.tolist()]

    def ids_between(self, start: int, stop: int) -> list[str]:
        """The ids at positions `start` to `stop` (not included) in the order of the shards."""
        return [i.decode() for i in self._ids[start:stop].tolist()]

    def get(self, item_ids: Sequence[str], image: bool = True) -> list[Item]:
        """The items in the order of `item_ids`. Without `image` the image's bytes are not read.

        Raises UnknownItem for an id that the store does not hold, ArtifactError where a shard is damaged.
        """
        rows_of_ids = [self._locate(item_id) for item_id in item_ids]
        groups = defaultdict(list)
        for shard, row in rows_of_ids:
            groups[shard, row // ROW_GROUP_ROWS].append(row % ROW_GROUP_ROWS)
        items: dict[tuple[int, int], Item] = {}
        for (shard, group), rows in groups.items():
            for row, fields in zip(rows, self._read(shard, group, rows, image), strict=True):
                items[shard, group * ROW_GROUP_ROWS + row] = Item(**{"image": None, **fields})
        in_order = [items[row] for row in rows_of_ids]
        for item_id, item in zip(item_ids, in_order, strict=True):
            if item.item_id != item_id:
                raise ArtifactError(
                    f"{self._stage.folder} holds item {item.item_id} where {item_id} was: files changed while they "
                    f"were open. Run the stage '{STAGE}' again, and open it again"
                )
        return in_order

    def _locate(self, item_id: str) -> tuple[int, int]:
        """The shard of an item and its row there. Raises UnknownItem."""
        position = self._find(item_id)
        if position is None:
            raise UnknownItem(f"no knowledge item has the id {item_id!r}; the knowledge base holds {len(self):,} items")
        shard = int(np.searchsorted(self._starts, position, side="right")) - 1
        return shard, position - int(self._starts[shard])

    def _find(self, item_id: str) -> int | None:
        encoded = np.bytes_(item_id.encode())
        position = int(np.searchsorted(self._ids, encoded, sorter=self._order))
        if position == len(self._ids) or self._ids[self._order[position]] != encoded:
            return None
        return int(self._order[position])

    def _read(self, shard: int, group: int, rows: list[int], image: bool) -> list[dict[str, Any]]:
        with self._lock:
            file = self._file(shard)
            columns = [*_COLUMNS, stored_column(file.schema_arrow, "image")] if image else _COLUMNS
            table = file.read_row_group(group, columns=columns, use_threads=False)
        return current_columns(table.take(rows)).to_pylist()

    def _file(self, shard: int) -> pq.ParquetFile:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        if len(self._open) >= OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        self._open[shard] = pq.ParquetFile(self._stage.path(self._shards[shard]), memory_map=True)
        return self._open[shard]


def _read_ids(path: Path) -> np.ndarray:
    """The ids (n,) of a shard, bytes of fixed width. Raises ArtifactError, naming the file."""
    try:
        column = pq.read_table(path, columns=["item_id"])["item_id"].combine_chunks()
    except (OSError, KeyError, pa.ArrowException) as error:
        message = f"{path} is missing or damaged ({error}). Run the stage '{STAGE}' again: it makes this file again"
        raise ArtifactError(message) from error
    width = pc.max(pc.binary_length(column)).as_py() or 1
    return np.array(column.cast(pa.binary()).to_pylist(), f"S{width}")
