"""One unit of the items stage: the rows of a chunk become a shard of items and a shard of rejected rows.

Rows that repeat an earlier row, or whose item is deleted, are dropped before their image is fetched. Items and final
rejections of an earlier run are taken over by the row's digest, so a rerun tries only what failed and what is new. At
most a few images and one row group are in memory at a time. Knows nothing of Ray or of the other units.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.artifacts import ROW_GROUP_ROWS, ArtifactError, Shard, StageFolder, write_atomic, write_parquet
from comem_ray.config import IngestConfig
from comem_ray.knowledge.earlier import REJECTED, EarlierItems, made_by_rules
from comem_ray.knowledge.fetch import Fetcher
from comem_ray.knowledge.images import ImageError, StoredImage, normalize_image
from comem_ray.knowledge.schema import READY_COLUMNS, REJECTED_SCHEMA, item_schema
from comem_ray.knowledge.sources.chunks import parse_batch, rows_digest
from comem_ray.knowledge.sources.files import SourceFile
from comem_ray.knowledge.sources.image_bytes import image_bytes, is_local_file
from comem_ray.knowledge.sources.lines import RAW_BYTES
from comem_ray.knowledge.sources.rows import ParsedRow, Row, RowFault
from comem_ray.knowledge.sources.scan import Unit

AHEAD = 4  # images per thread that are under way or ready
Outcome = StoredImage | RowFault
URL_CHARS = 2_048  # characters of an image reference kept in a rejected row


def item_file(unit: str) -> str:
    """Logical name of a unit's shard of items."""
    return f"{unit}.parquet"


def rejected_file(unit: str) -> str:
    """Logical name of a unit's shard of rejected rows."""
    return f"{REJECTED}/{unit}.parquet"


class ImageMaker:
    """Loads and normalises images on threads of its own. At most `decoders` threads decode at once (memory, cores)."""

    def __init__(self, settings: IngestConfig, decoders: int):
        self._limits = settings.images
        self._fetcher = Fetcher(settings.fetch, settings.images.max_bytes)
        self._decoding = threading.Semaphore(decoders)
        threads = max(decoders, settings.fetch.threads if settings.fetch.enabled else 0)
        self._pool = ThreadPoolExecutor(threads, "images")
        self.ahead = AHEAD * threads

    def start(self, image: str | bytes, folder: Path) -> Future[StoredImage]:
        """Starts to load a Row's `image` and to normalise it. The future may raise ImageError."""
        return self._pool.submit(self._make, image, folder)

    def _make(self, image: str | bytes, folder: Path) -> StoredImage:
        data = image_bytes(image, folder, self._fetcher, self._limits.max_bytes)
        with self._decoding:
            return normalize_image(data, self._limits)


@dataclass(frozen=True)
class Reuse:
    """What a unit may take from earlier runs: the rows of `shards`. With `recheck`, no image that is a local file."""

    shards: Sequence[Shard] = ()
    recheck: bool = False


def ingest_unit(
    file: SourceFile, unit: Unit, batch: pa.RecordBatch, stage: StageFolder, maker: ImageMaker, reuse: Reuse = Reuse()
) -> int:
    """Makes a unit of its chunk and commits it. Returns how many of its rows were taken over from earlier runs.

    Raises ArtifactError if the file changed after the scan.
    """
    rows = parse_batch(file.format, batch)
    if rows_digest(rows) != unit.digest:
        raise ArtifactError(f"{file.path} changed since it was scanned: run again, and do not change it meanwhile")
    # A rejected row of the live source is a damaged file, and a copy from a backup may have mended it.
    shards = [s for s in reuse.shards if not (file.live and Path(s.name).parent.name == REJECTED)]
    earlier = _Earlier(EarlierItems(stage.path, stage.stage, shards), reuse.recheck)
    rejected: list[dict[str, Any]] = []
    items = 0

    def write(path: Path) -> None:
        nonlocal items
        with _ItemWriter(path, made_by_rules(item_schema(_ready_widths(rows)), rows)) as writer:
            for number, raw, row, outcome in _outcomes(file, unit, rows, earlier, maker):
                if isinstance(outcome, StoredImage):
                    assert isinstance(row, Row)
                    writer.add(_item(file, number, row, outcome))
                else:
                    rejected.append(_rejected(file, number, raw, row, outcome))
            items = writer.rows

    write_atomic(stage.path / item_file(unit.name), write)
    schema = made_by_rules(REJECTED_SCHEMA, rows)
    write_parquet(stage.path / rejected_file(unit.name), pa.Table.from_pylist(rejected, schema))
    files = {item_file(unit.name): items, rejected_file(unit.name): len(rejected)}
    stage.commit(unit.name, unit.inputs, files, _counts(unit, len(rows), items, rejected))
    return earlier.count


def _ready_widths(rows: Sequence[ParsedRow]) -> dict[str, int]:
    """The widths of the ready embeddings among the rows, by column."""
    vectors = [(name, getattr(row, name)) for _, row in rows if isinstance(row, Row) for name in READY_COLUMNS]
    return {name: len(data) // np.float16().itemsize for name, data in vectors if data is not None}


class _Earlier:
    """Outcomes of earlier runs that stand, counted."""

    def __init__(self, items: EarlierItems, recheck: bool):
        self._items, self._recheck, self.count = items, recheck, 0

    def outcome(self, row: Row) -> Outcome | None:
        if self._recheck and isinstance(row.image, str) and is_local_file(row.image):
            return None
        outcome = self._items.outcome(row.digest)
        self.count += outcome is not None
        return outcome


def _outcomes(
    file: SourceFile,
    unit: Unit,
    rows: list[ParsedRow],
    earlier: _Earlier,
    maker: ImageMaker,
) -> Iterator[tuple[int, bytes, Row | RowFault, Outcome]]:
    """The rows that count, in order: number, bytes, row and outcome. Images are made some rows ahead."""
    left_out = {*unit.repeats.tolist(), *unit.deleted.tolist()}
    shared = _SharedImages(rows, Path(file.images), maker)
    waiting: deque[tuple[int, bytes, Row | RowFault, Outcome | Future[StoredImage]]] = deque()
    for position, (raw, row) in enumerate(rows):
        if position in left_out:
            continue
        number = unit.first_row + position
        if isinstance(row, RowFault):
            waiting.append((number, raw, row, row))
        else:
            waiting.append((number, raw, row, earlier.outcome(row) or shared.start(row.image)))
        if len(waiting) > maker.ahead:
            yield _wait_for_outcome(*waiting.popleft())
    while waiting:
        yield _wait_for_outcome(*waiting.popleft())


def _wait_for_outcome(
    number: int, raw: bytes, row: Row | RowFault, outcome: Outcome | Future[StoredImage]
) -> tuple[int, bytes, Row | RowFault, Outcome]:
    if isinstance(outcome, Future):
        try:
            outcome = outcome.result()
        except ImageError as error:
            outcome = RowFault(error.reason, error.detail, error.retryable)
    return number, raw, row, outcome


class _SharedImages:
    """Starts each image once, for all rows of a unit that name it (a page's image in many languages)."""

    def __init__(self, rows: list[ParsedRow], folder: Path, maker: ImageMaker):
        self._uses_left = Counter(row.image for _, row in rows if isinstance(row, Row))
        self._futures: dict[str | bytes, Future[StoredImage]] = {}
        self._folder, self._maker = folder, maker

    def start(self, image: str | bytes) -> Future[StoredImage]:
        self._uses_left[image] -= 1
        if image not in self._futures:
            future = self._maker.start(image, self._folder)
            if self._uses_left[image]:
                self._futures[image] = future
            return future
        return self._futures[image] if self._uses_left[image] else self._futures.pop(image)


class _ItemWriter:
    """Writes items in row groups of ROW_GROUP_ROWS, with at most one group in memory."""

    def __init__(self, path: Path, schema: pa.Schema):
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._group: list[dict[str, Any]] = []
        self.rows = 0

    def __enter__(self) -> _ItemWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, item: dict[str, Any]) -> None:
        self._group.append(item)
        self.rows += 1
        if len(self._group) == ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._group:
            self._writer.write_table(pa.Table.from_pylist(self._group, self._schema))
        self._group = []


def _item(file: SourceFile, number: int, row: Row, image: StoredImage) -> dict[str, Any]:
    return {
        "item_id": row.item_id,
        "language": row.language,
        "title": row.title,
        "text": row.text,
        "page_url": row.page_url,
        "image_url": row.image_url,
        "image": image.data,
        "width": image.width,
        "height": image.height,
        "source": file.name,
        "source_row": number,
        **{n: np.frombuffer(data, np.float16) for n in READY_COLUMNS if (data := getattr(row, n)) is not None},
    }


def _rejected(file: SourceFile, number: int, raw: bytes, row: Row | RowFault, fault: RowFault) -> dict[str, Any]:
    reference = row.image_url or row.image if isinstance(row, Row) else None
    return {
        "source": file.name,
        "source_row": number,
        "reason": fault.reason,
        "detail": fault.detail,
        "retryable": fault.retryable,
        "image_url": reference[:URL_CHARS] if isinstance(reference, str) else None,
        "item_id": row.item_id if isinstance(row, Row) else None,
        "raw": raw[:RAW_BYTES],
    }


def _counts(unit: Unit, rows: int, items: int, rejected: list[dict[str, Any]]) -> dict[str, int]:
    duplicates, deleted = len(unit.repeats), len(unit.deleted)
    assert rows == items + len(rejected) + duplicates + deleted, "every row has exactly one outcome"
    reasons = Counter(f"rejected.{row['reason']}" for row in rejected)
    retryable = sum(row["retryable"] for row in rejected)
    main = {"rows": rows, "items": items, "rejected": len(rejected), "duplicates": duplicates, "retryable": retryable}
    # Without deletions a record is as it always was.
    return {**main, **({"deleted": deleted} if deleted else {}), **dict(sorted(reasons.items()))}
