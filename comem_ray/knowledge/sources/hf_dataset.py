"""Arrow shards of a dataset that Hugging Face `datasets` saved on disk (`save_to_disk`). It need not be installed.

An image column is a struct of bytes and path (the feature Image), or bytes. Without bytes, the path is a file below
the source's folder of images. Texts are those of `named_rows.NAMES`, or as `sources[].columns` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from comem_ray.knowledge.sources.files import SourceFile
from comem_ray.knowledge.sources.named_rows import NAMES, NamedRow, batches, fault_row, parse, used_names
from comem_ray.knowledge.sources.rows import RowFault
from comem_ray.knowledge.sources.tables import arrow_batches, rows_of

__all__ = ["parse", "read"]


def read(file: SourceFile, rows: int) -> Iterator[pa.RecordBatch]:
    """The chunks of an Arrow shard, each of at most `rows` rows."""
    return batches(_rows(file), rows, file.columns)


def _rows(file: SourceFile) -> Iterator[NamedRow]:
    names, given = used_names(file.columns), dict(file.columns).get("image")
    image, empty = None, True
    for batch in arrow_batches(Path(file.path)):
        if isinstance(batch, RowFault):
            yield NamedRow({}, fault=batch)
            empty = False
            continue
        image = image or _image_column(batch.schema, given)
        chosen = [n for n in batch.schema.names if n in names or n == image]
        if not set(chosen) - {image}:
            yield fault_row(
                "arrow_columns",
                f"the columns are {', '.join(batch.schema.names)}: none is known as a text, name it in columns",
            )
            return
        for row in rows_of(batch.select(chosen)):
            empty = False
            yield NamedRow({}, fault=row) if isinstance(row, RowFault) else _named(row, image, given or "image")
    if empty:
        yield fault_row("source_empty", "the shard has no row")


def _image_column(schema: pa.Schema, given: str | None) -> str | None:
    """The column of images: the given one, the first of a usual name, or the first with bytes and path."""
    if given is not None:
        return given
    usual = [name for name in NAMES["image"] if name in schema.names]
    return next(iter(usual), None) or next((f.name for f in schema if _has_bytes(f.type)), None)


def _has_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and kind.get_field_index("path") >= 0


def _named(row: dict[str, Any], image: str | None, reference_name: str) -> NamedRow:
    value = row.pop(image, None) if image else None
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(data, bytes) and data:
        return NamedRow(row, data)
    reference = path or (data if isinstance(data, str) else None)
    if data and reference is None:
        kind = type(data).__name__
        return fault_row("value_type", f"column {image} holds a {kind}, wanted an image's bytes or path", values=row)
    return NamedRow({**row, reference_name: reference} if reference else row)
