"""What earlier runs of the items stage made of its rows, by their digest: images, and rejections that are final.

A unit looks in the few shards that hold one of its rows (`artifacts.reuse` says which), so one row in front of a file
costs one image, not all of them. At most one row group per shard is in memory.

An id that the source gives says nothing of the row's content. A shard keeps, as metadata, the digests of such rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.artifacts import ROW_GROUP_ROWS, ArtifactError, Shard, check_shard
from comem_ray.knowledge.images import StoredImage
from comem_ray.knowledge.schema import stored_column
from comem_ray.knowledge.sources.chunks import RULES
from comem_ray.knowledge.sources.rows import ParsedRow, Row, RowFault

_KEY = b"comem.rules"
_DIGESTS = b"comem.digests"
REJECTED = "rejected"  # the folder of rejected rows


def made_by_rules(schema: pa.Schema, rows: Sequence[ParsedRow] = ()) -> pa.Schema:
    """`schema` with what a shard of `rows` keeps as metadata: the version of the reading rules.

    And the digests, by `item_id`, of rows whose id the source gave; of several with one id the first counts.
    """
    digests = {row.item_id: row.digest for _, row in reversed(rows) if isinstance(row, Row)}
    given = {item_id: digest for item_id, digest in digests.items() if item_id != digest}
    kept = {_DIGESTS: json.dumps(given, sort_keys=True, separators=(",", ":")).encode()} if given else {}
    return schema.with_metadata({_KEY: str(RULES).encode(), **kept})


class EarlierItems:
    """The rows of `shards` of the items stage in `folder`.

    None are of a shard that is damaged, or that other rules made: what they made of an image may be what was mended.
    """

    def __init__(self, folder: Path, stage: str, shards: Sequence[Shard]):
        self._images: dict[str, tuple[_ImageShard, int]] = {}
        self._final: dict[str, RowFault] = {}
        for shard in shards:
            try:
                path = check_shard(folder, shard, stage)
                metadata = pq.read_schema(path).metadata or {}
                if metadata.get(_KEY) != str(RULES).encode():
                    continue
                given = json.loads(metadata.get(_DIGESTS, b"{}"))
                if Path(shard.name).parent.name == REJECTED:
                    self._final.update(_final_faults(path, given))
                else:
                    images = _ImageShard(path)
                    ids = enumerate(images.ids())
                    self._images.update({given.get(item_id, item_id): (images, row) for row, item_id in ids})
            except (ArtifactError, OSError, KeyError, pa.ArrowException):
                continue

    def outcome(self, digest: str) -> StoredImage | RowFault | None:
        """The image or the final rejection of a row, by its digest, in the earlier run; None if it must be tried."""
        if digest in self._images:
            images, row = self._images[digest]
            return images.read(row)
        return self._final.get(digest)


class _ImageShard:
    def __init__(self, path: Path):
        self._file = pq.ParquetFile(path)
        self._group: tuple[int, pa.Table | None] = (-1, None)

    def ids(self) -> list[str]:
        ids: list[str] = self._file.read(["item_id"])["item_id"].to_pylist()
        return ids

    def read(self, row: int) -> StoredImage:
        group, n = divmod(row, ROW_GROUP_ROWS)
        if self._group[0] != group:
            image = stored_column(self._file.schema_arrow, "image")
            self._group = group, self._file.read_row_group(group, [image, "width", "height"])
        table = self._group[1]
        assert table is not None
        data, width, height = (column[n].as_py() for column in table.columns)
        return StoredImage(data, width, height)


def _final_faults(path: Path, given: Mapping[str, str]) -> dict[str, RowFault]:
    rows = pq.read_table(path, columns=["item_id", "reason", "detail", "retryable"]).to_pylist()
    final = [r for r in rows if r["item_id"] and not r["retryable"]]
    return {given.get(r["item_id"], r["item_id"]): RowFault(r["reason"], r["detail"]) for r in final}
