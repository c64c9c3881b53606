"""Shards of an img2dataset output folder: `00000.parquet` says what was fetched, the images lie beside it.

A row of the parquet is a source row: `url`, `caption`, `key`, `status`. Its image is the member `<key>.jpg` of
`00000.tar`, or the file `00000/<key>.jpg`, or the column `jpg` of the parquet itself, as `output_format` had it. A row
that img2dataset could not fetch is rejected (`download_failed`), and so is one whose image is not there. Images in
folders are paths here: they are loaded when items are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def related(file: SourceFile) -> list[Path]:
    """Files whose change is a change of the shard."""
    path = Path(file.path)
    return [path.with_suffix(".tar"), path.with_suffix("")]


def read(file: SourceFile, rows: int) -> Iterator[pa.RecordBatch]:
    """The chunks of a shard, each of at most `rows` rows of its parquet."""
    return batches(_rows(file), rows, file.columns)


def _rows(file: SourceFile) -> Iterator[NamedRow]:
    path = Path(file.path)
    tar = path.with_suffix(".tar")
    images = TarImages(tar) if tar.exists() else None
    folder = path.with_suffix("")
    image_name = dict(file.columns).get("image", "image")
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
            if isinstance(row, RowFault):
                yield NamedRow({}, fault=row)
            else:
                reference = {} if images is not None else {image_name: _path(folder, str(row["key"]))}
                yield _named(row, images, reference)
    if images is not None and images.fault:
        yield NamedRow({}, fault=images.fault)
    elif empty:
        yield fault_row("source_empty", "the shard has no row")


def _named(row: dict[str, Any], images: TarImages | None, reference: Mapping[str, str]) -> NamedRow:
    """The row with its image: bytes of the parquet or the tar, or else `reference`, the path of a file."""
    in_row = next((data for ending in IMAGE_ENDINGS if (data := row.pop(ending, None))), None)
    status = row.get("status")
    if status not in (None, "success"):
        message = row.get("error_message") or "no reason is given"
        return fault_row("download_failed", f"img2dataset did not fetch the image: {status}, {message}", values=row)
    if isinstance(in_row, bytes):
        return NamedRow(row, in_row)
    if images is None:
        return NamedRow({**row, **reference})
    image = images.read(str(row["key"]))
    return NamedRow(row, fault=image) if isinstance(image, RowFault) else NamedRow(row, image)


def _path(folder: Path, key: str) -> str:
    """The path of a key's image, from the folder of the shards on: it is loaded when its item is made."""
    names = [f"{key}.{ending}" for ending in IMAGE_ENDINGS]
    return f"{folder.name}/{next((name for name in names if (folder / name).is_file()), names[0])}"
