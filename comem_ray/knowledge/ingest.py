"""One unit of the items stage: the rows of a chunk become a shard of items and a shard of rejected rows.

Rows that repeat an earlier row are dropped before their image is fetched. Where an earlier run left shards of the
same unit, its items are taken over by `item_id` and its final rejections by row: only what failed is tried again.
At most a few images and one row group are held at a time. Knows nothing of Ray, nor of which units there are.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.artifacts import ROW_GROUP_ROWS, ArtifactError, Record, StageFolder, write_atomic, write_parquet
from comem_ray.config import IngestConfig
from comem_ray.knowledge.fetch import Fetcher
from comem_ray.knowledge.images import ImageError, StoredImage, normalize_image
from comem_ray.knowledge.schema import ITEM_SCHEMA, REJECTED_SCHEMA
from comem_ray.knowledge.sources.chunks import parse_batch, rows_digest
from comem_ray.knowledge.sources.files import SourceFile
from comem_ray.knowledge.sources.image_bytes import image_bytes
from comem_ray.knowledge.sources.lines import RAW_BYTES
from comem_ray.knowledge.sources.rows import Fault, ParsedRow, Row
from comem_ray.knowledge.sources.scan import Unit

AHEAD = 4  # images under way or done for each thread
Fate = StoredImage | Fault
URL_CHARS = 2_048  # characters of an image reference that a rejected row keeps


def item_file(unit: str) -> str:
    """Name, in the stage folder, of a unit's shard of items."""
    return f"{unit}.parquet"


def rejected_file(unit: str) -> str:
    """Name, in the stage folder, of a unit's shard of rejected rows."""
    return f"rejected/{unit}.parquet"


class ImageMaker:
    """Loads and normalises images on threads of its own; `decoders` of them decode at once (memory, cores)."""

    def __init__(self, settings: IngestConfig, decoders: int):
        self._limits = settings.images
        self._fetcher = Fetcher(settings.fetch, settings.images.max_bytes)
        self._decoding = threading.Semaphore(decoders)
        threads = max(decoders, settings.fetch.threads if settings.fetch.enabled else 0)
        self._pool = ThreadPoolExecutor(threads, "images")
        self.ahead = AHEAD * threads

    def start(self, image: str | bytes, folder: Path) -> Future[StoredImage]:
        """Begins to make what items hold of a Row's `image`; the result may be a ImageError."""
        return self._pool.submit(self._make, image, folder)

    def _make(self, image: str | bytes, folder: Path) -> StoredImage:
        data = image_bytes(image, folder, self._fetcher, self._limits.max_bytes)
        with self._decoding:
            return normalize_image(data, self._limits)


def ingest_unit(file: SourceFile, unit: Unit, batch: pa.RecordBatch, stage: StageFolder, maker: ImageMaker) -> Record:
    """Makes and commits a unit out of its chunk. Raises ArtifactError where that is not the chunk that was scanned."""
    rows = parse_batch(file.format, batch)
    if rows_digest(rows) != unit.digest:
        raise ArtifactError(f"{file.path} changed while it was read: leave it alone and run again")
    earlier = _Earlier(stage.path, unit.name)
    rejected: list[dict[str, Any]] = []
    items = 0

    def write(path: Path) -> None:
        nonlocal items
        with _ItemWriter(path) as writer:
            for number, raw, row, fate in _fates(file, unit, rows, earlier, maker):
                if isinstance(fate, StoredImage):
                    assert isinstance(row, Row)
                    writer.add(_item(file, number, row, fate))
                else:
                    rejected.append(_rejected(file, number, raw, row, fate))
            items = writer.rows
        # From here to the commit the files are newer than their record; without one the unit counts as unfinished.
        stage.withdraw(unit.name)

    write_atomic(stage.path / item_file(unit.name), write)
    write_parquet(stage.path / rejected_file(unit.name), pa.Table.from_pylist(rejected, REJECTED_SCHEMA))
    files = {item_file(unit.name): items, rejected_file(unit.name): len(rejected)}
    return stage.commit(unit.name, unit.inputs, files, _counts(len(rows), items, rejected, len(unit.repeats)))


def _fates(
    file: SourceFile,
    unit: Unit,
    rows: list[ParsedRow],
    earlier: _Earlier,
    maker: ImageMaker,
) -> Iterator[tuple[int, bytes, Row | Fault, Fate]]:
    """The rows that repeat none, in order: number, bytes, row and fate. Images are made some rows ahead."""
    repeats = set(unit.repeats.tolist())
    shared = _SharedImages(rows, Path(file.images), maker)
    waiting: deque[tuple[int, bytes, Row | Fault, Fate | Future[StoredImage]]] = deque()
    for position, (raw, row) in enumerate(rows):
        if position in repeats:
            continue
        number = unit.first_row + position
        fate = row if isinstance(row, Fault) else earlier.fate(number, raw, row) or shared.start(row.image)
        waiting.append((number, raw, row, fate))
        if len(waiting) > maker.ahead:
            yield _settled(*waiting.popleft())
    while waiting:
        yield _settled(*waiting.popleft())


def _settled(
    number: int, raw: bytes, row: Row | Fault, fate: Fate | Future[StoredImage]
) -> tuple[int, bytes, Row | Fault, Fate]:
    if isinstance(fate, Future):
        try:
            fate = fate.result()
        except ImageError as error:
            fate = Fault(error.reason, error.detail, error.retryable)
    return number, raw, row, fate


class _SharedImages:
    """Begins images, once for all rows of a unit that name the same one (a page's image in many languages)."""

    def __init__(self, rows: list[ParsedRow], folder: Path, maker: ImageMaker):
        self._left = Counter(row.image for _, row in rows if isinstance(row, Row))
        self._begun: dict[str | bytes, Future[StoredImage]] = {}
        self._folder, self._maker = folder, maker

    def start(self, image: str | bytes) -> Future[StoredImage]:
        self._left[image] -= 1
        if image not in self._begun:
            begun = self._maker.start(image, self._folder)
            if self._left[image]:
                self._begun[image] = begun
            return begun
        return self._begun[image] if self._left[image] else self._begun.pop(image)


class _Earlier:
    """What an earlier run left of a unit. Items are told by their `item_id`, rejected rows by number and bytes."""

    def __init__(self, folder: Path, unit: str):
        self._items = _opened(folder / item_file(unit))
        ids = self._items.read(["item_id"]).column(0).to_pylist() if self._items else []
        self._place = {item_id: divmod(n, ROW_GROUP_ROWS) for n, item_id in enumerate(ids)}
        self._group: tuple[int, pa.Table | None] = (-1, None)
        rejected = _opened(folder / rejected_file(unit))
        rows = rejected.read().to_pylist() if rejected else []
        # A row whose bytes were cut short cannot be told for certain, and is judged anew.
        self._final = {r["source_row"]: r for r in rows if not r["retryable"] and len(r["raw"]) < RAW_BYTES}

    def fate(self, number: int, raw: bytes, row: Row) -> Fate | None:
        """The image or the final rejection that the row got then; None where it must be tried."""
        if row.item_id in self._place:
            return self._image(*self._place[row.item_id])
        final = self._final.get(number)
        if final is not None and final["raw"] == raw:
            return Fault(final["reason"], final["detail"])
        return None

    def _image(self, group: int, n: int) -> StoredImage:
        assert self._items is not None
        if self._group[0] != group:
            self._group = group, self._items.read_row_group(group, ["image", "width", "height"])
        table = self._group[1]
        assert table is not None
        image, width, height = (column[n].as_py() for column in table.columns)
        return StoredImage(image, width, height)


def _opened(path: Path) -> pq.ParquetFile | None:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException):  # none, or a damaged one
        return None


class _ItemWriter:
    """Writes items in row groups of ROW_GROUP_ROWS, so that no more than one group is held."""

    def __init__(self, path: Path):
        self._writer = pq.ParquetWriter(path, ITEM_SCHEMA, compression="zstd")
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
            self._writer.write_table(pa.Table.from_pylist(self._group, ITEM_SCHEMA))
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
    }


def _rejected(file: SourceFile, number: int, raw: bytes, row: Row | Fault, fault: Fault) -> dict[str, Any]:
    reference = row.image_url or row.image if isinstance(row, Row) else None
    return {
        "source": file.name,
        "source_row": number,
        "reason": fault.reason,
        "detail": fault.detail,
        "retryable": fault.retryable,
        "image_url": reference[:URL_CHARS] if isinstance(reference, str) else None,
        "raw": raw[:RAW_BYTES],
    }


def _counts(rows: int, items: int, rejected: list[dict[str, Any]], duplicates: int) -> dict[str, int]:
    assert rows == items + len(rejected) + duplicates, "every row has exactly one fate"
    reasons = Counter(f"rejected.{row['reason']}" for row in rejected)
    retryable = sum(row["retryable"] for row in rejected)
    main = {"rows": rows, "items": items, "rejected": len(rejected), "duplicates": duplicates, "retryable": retryable}
    return {**main, **dict(sorted(reasons.items()))}
