"""Rows of named values with the bytes of an image: what tars, folders, Arrow files and embedding folders give.

Other people's columns have other names. A field of an item takes the column that the source names for it
(`sources[].columns`), else the first of NAMES that holds a value. A list of texts is joined line by line. The bytes of
a row in its file are its used values as JSON, without pixels. Opens no file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from comem_ray.knowledge.sources.framed import CHUNK_BYTES
from comem_ray.knowledge.sources.rows import ParsedRow, Row, RowFault, make_row

NAMES: dict[str, tuple[str, ...]] = {
    "image": ("image", "file_name", "image_path", "filename", "filepath", "jpg", "jpeg", "png", "webp", "img"),
    "title": ("title", "page_title"),
    "text": ("txt", "text", "caption", "captions", "description", "TEXT"),
    "language": ("language", "lang"),
    "page_url": ("page_url",),
    "image_url": ("image_url", "url", "URL"),
    "item_id": ("item_id",),
}
"""Fields of an item with the columns that hold them in the field's datasets, the first one first."""

Columns = tuple[tuple[str, str], ...]
"""Pairs of a field of NAMES and the column that holds it, as `sources[].columns` gives them."""

SCHEMA = pa.schema(
    [
        pa.field("raw", pa.binary(), nullable=False),  # JSON of the values
        pa.field("image", pa.large_binary()),  # null: the values hold a path or a URL
        pa.field("image_embedding", pa.binary()),  # float16 of a ready CLIP embedding
        pa.field("text_embedding", pa.binary()),
        pa.field("fault", pa.string()),  # the reason, null without a fault
        pa.field("detail", pa.string()),
        pa.field("retryable", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class NamedRow:
    """A row as its file has it. Embeddings are the bytes of (C,) float16 vectors of length 1."""

    values: Mapping[str, Any]
    image: bytes | None = None
    image_embedding: bytes | None = None
    text_embedding: bytes | None = None
    fault: RowFault | None = None


def fault_row(reason: str, detail: str, retryable: bool = False, values: Mapping[str, Any] | None = None) -> NamedRow:
    """A row that makes no item."""
    return NamedRow(values or {}, fault=RowFault(reason, detail, retryable))


def used_names(columns: Columns) -> set[str]:
    """Every column that may become a field of an item."""
    named = dict(columns)
    return {name for field, names in NAMES.items() for name in ([named[field]] if field in named else names)}


def batches(rows: Iterable[NamedRow], limit: int, columns: Columns) -> Iterator[pa.RecordBatch]:
    """Cuts rows into batches of at most `limit` rows and about CHUNK_BYTES bytes. A batch knows its columns' names."""
    schema = SCHEMA.with_metadata({"columns": json.dumps(columns)})
    held: list[list[Any]] = []
    size = 0
    for row in rows:
        raw = json.dumps(row.values, ensure_ascii=True, default=str).encode()
        fault = row.fault
        parts = [raw, row.image, row.image_embedding, row.text_embedding]
        held.append([*parts, *((fault.reason, fault.detail, fault.retryable) if fault else (None, None, None))])
        size += sum(len(part) for part in parts if part is not None)
        if len(held) == limit or size >= CHUNK_BYTES:
            yield _batch(held, schema)
            held, size = [], 0
    if held:
        yield _batch(held, schema)


def parse(batch: pa.RecordBatch) -> Iterator[ParsedRow]:
    """The rows of a chunk: each as JSON without its pixels, with the Row or the RowFault made of it."""
    columns = tuple((field, name) for field, name in json.loads(batch.schema.metadata[b"columns"]))
    for n in range(batch.num_rows):
        raw, image, *embeddings, reason, detail, retryable = (column[n].as_py() for column in batch.columns)
        if reason is not None:
            yield raw, RowFault(reason, detail, retryable)
        else:
            yield raw, _row(json.loads(raw), image, columns, *embeddings)


def _row(
    values: dict[str, Any],
    image: bytes | None,
    columns: Columns,
    image_embedding: bytes | None,
    text_embedding: bytes | None,
) -> Row | RowFault:
    named = dict(columns)
    fields: dict[str, str | None] = {}
    for field, names in NAMES.items():
        if field == "image" and image is not None:
            continue
        name = named.get(field) or next((n for n in names if not _is_empty(values.get(n))), names[0])
        value = values.get(name)
        if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
            value = "\n".join(value)
        if _is_empty(value):
            value = None
        elif not isinstance(value, str):
            return RowFault(
                "value_type", f"column {name} holds a {type(value).__name__}, wanted a text for the {field}"
            )
        fields[field] = value
    text, title = fields.pop("text"), fields.get("title")
    row = make_row(**{"image": image, **fields}, description=text)  # type: ignore[arg-type]
    if isinstance(row, RowFault) or image_embedding is None:
        return row
    # The text of the embedding is the caption alone; with a title the item's text is another one.
    return replace(row, image_embedding=image_embedding, text_embedding=None if title else text_embedding)


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", []) or (isinstance(value, float) and math.isnan(value))


def _batch(rows: list[list[Any]], schema: pa.Schema) -> pa.RecordBatch:
    arrays = [pa.array([row[n] for row in rows], field.type) for n, field in enumerate(schema)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
