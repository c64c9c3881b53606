"""JSONL with a folder of images: one object per line.

    {"image": path, URL or data URI, "title": ..., "text": ..., "language": ..., "page_url": ..., "image_url": ...,
     "item_id": ...}

"description" may stand for "text". All are strings or null. An item needs an image ("image" or "image_url"), and a
title or a text. An "item_id" (24 hex digits) takes the place of the digest of the other fields. Fields of other names
are ignored. Opens no image: paths are resolved when images are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from comem_ray.knowledge.sources.framed import batches, rows_of
from comem_ray.knowledge.sources.lines import Line, read_lines
from comem_ray.knowledge.sources.rows import ParsedRow, Row, RowFault, make_row

FIELDS = ("image", "title", "text", "description", "language", "page_url", "image_url", "item_id")


def read(path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """The chunks of a file, each of at most `rows` rows."""
    return batches(_lines(path), rows, {})


def parse(batch: pa.RecordBatch) -> Iterator[ParsedRow]:
    """The rows of a chunk: the bytes of each in the file, with the Row or the RowFault made of them."""
    for raw, fault in rows_of(batch):
        yield raw, fault or _row(raw)


def _lines(path: Path) -> Iterator[Line]:
    empty = True
    for line in read_lines(path):
        empty = False
        yield line
    if empty:
        yield b"", RowFault("source_empty", "the file is empty")


def _row(raw: bytes) -> Row | RowFault:
    if not raw.strip():
        return RowFault("empty_line", "the line is empty")
    try:
        data = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RowFault("bad_utf8", f"byte {error.start} is not UTF-8")
    except (ValueError, RecursionError):
        return RowFault("json_invalid", "the line is not JSON")
    if not isinstance(data, dict):
        return RowFault("json_type", f"the line is {_json_type(data)}, wanted an object")
    for name in FIELDS:
        if not isinstance(data.get(name), str | None):
            return RowFault(
                "json_type", f"field {name} is {_json_type(data[name])}, wanted a string or null{_hint(name)}"
            )
    return make_row(
        language=data.get("language"),
        title=data.get("title"),
        description=data.get("text") or data.get("description"),
        page_url=data.get("page_url"),
        image_url=data.get("image_url"),
        image=data.get("image"),
        item_id=data.get("item_id"),
    )


def _json_type(value: Any) -> str:
    """What JSON calls a value."""
    names = {list: f"an array of {len(value) if isinstance(value, list) else 0}", dict: "an object", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a string" if isinstance(value, str) else "a number")


def _hint(name: str) -> str:
    return ": an item has one image, write one line for each" if name in ("image", "image_url") else ""
