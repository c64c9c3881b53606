"""Shards of an img2dataset output folder: `00000.parquet` says what was fetched, the images lie beside it.

A row of the parquet is a source row: `url`, `caption`, `key`, `status`. Its image is the member `<key>.jpg` of
`00000.tar`, or the file `00000/<key>.jpg`, or the column `jpg` of the parquet itself, as `output_format` had it. A row
that img2dataset could not fetch is rejected (`download_failed`). A row whose image is not there is, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from comem_ray.knowledge.sources.files import SourceFile
from comem_ray.knowledge.sources.keyed import IMAGE_ENDINGS
from comem_ray.knowledge.sources.named_rows import NamedRow, batches, fault_row, parse, used_names
from comem_ray.knowledge.sources.rows import RowFault
from comem_ray.knowledge.sources.tables import parquet_batches, rows_of
from comem_ray.knowledge.sources.tars import TarImages

__all__ = ["parse", "read", "related"]

STATUS = ("key", "status", "error_message")
FindImage = Callable[[str], bytes | RowFault]


def related(file: SourceFile) -> list[Path]:
    """Files whose change is a change of the shard."""
    return [Path(file.path).with_suffix(".tar")]


def read(file: SourceFile, rows: int) -> Iterator[pa.RecordBatch]:
    """The chunks of a shard, each of at most `rows` rows of its parquet."""
    return batches(_rows(file), rows, file.columns)


def _rows(file: SourceFile) -> Iterator[NamedRow]:
    path = Path(file.path)
    tar = path.with_suffix(".tar")
    images = TarImages(tar) if tar.exists() else None
    find = images.read if images is not None else _files_of(path.with_suffix(""))
    names = used_names(file.columns) | set(STATUS) | set(IMAGE_ENDINGS)
    empty = True
    for batch in parquet_batches(path, names):
        empty = False
        if isinstance(batch, RowFault):
            yield NamedRow({}, fault=batch)
            continue
        if "key" not in batch.schema.names:
            columns = ", ".join(batch.schema.names) or "other ones"
            yield fault_row("parquet_columns", f"the columns are {columns}: img2dataset's metadata has key and status")
            return
        for row in rows_of(batch):
            yield NamedRow({}, fault=row) if isinstance(row, RowFault) else _named(row, find)
    if images is not None and images.fault:
        yield NamedRow({}, fault=images.fault)
    elif empty:
        yield fault_row("source_empty", "the shard has no row")


def _named(row: dict[str, Any], find: FindImage) -> NamedRow:
    in_row = next((data for ending in IMAGE_ENDINGS if (data := row.pop(ending, None))), None)
    status = row.get("status")
    if status not in (None, "success"):
        message = row.get("error_message") or "no reason is given"
        return fault_row("download_failed", f"img2dataset did not fetch the image: {status}, {message}", values=row)
    image = in_row if isinstance(in_row, bytes) else find(str(row["key"]))
    return NamedRow(row, fault=image) if isinstance(image, RowFault) else NamedRow(row, image)


def _files_of(folder: Path) -> FindImage:
    def find(key: str) -> bytes | RowFault:
        for ending in IMAGE_ENDINGS:
            path = folder / f"{key}.{ending}"
            if path.parent == folder and path.is_file():
                try:
                    return path.read_bytes()
                except OSError as error:
                    return RowFault("image_missing", f"{path.name} cannot be read: {error.strerror}", True)
        return RowFault("image_missing", f"{folder.name}/ and {folder.name}.tar hold no image of key {key!r}")

    return find
