"""JSONL beside a folder of images: one object a line.

    {"image": path, URL or data URI, "title": ..., "text": ..., "language": ..., "page_url": ..., "image_url": ...}

"description" stands for "text". All are strings or null; an item needs an image ("image" or "image_url") and a title
or a text. Other fields are ignored. Knows nothing of files on disk: paths are resolved where images are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from comem_ray.knowledge.sources.framed import batches, rows_of
from comem_ray.knowledge.sources.lines import Line, read_lines
from comem_ray.knowledge.sources.rows import Fault, ParsedRow, Row, make_row

FIELDS = ("image", "title", "text", "description", "language", "page_url", "image_url")


def read(path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """The chunks of a file, each of at most `rows` rows."""
    return batches(_lines(path), rows, {})


def parse(batch: pa.RecordBatch) -> Iterator[ParsedRow]:
    """The rows of a chunk: each as it stood in the file, and what became of it."""
    for raw, fault in rows_of(batch):
        yield raw, fault or _row(raw)


def _lines(path: Path) -> Iterator[Line]:
    empty = True
    for line in read_lines(path):
        empty = False
        yield line
    if empty:
        yield b"", Fault("source_empty", "the file is empty")


def _row(raw: bytes) -> Row | Fault:
    if not raw.strip():
        return Fault("empty_line", "the line is empty")
    try:
        data = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Fault("bad_utf8", f"byte {error.start} is no UTF-8")
    except (ValueError, RecursionError):
        return Fault("json_invalid", "the line is not JSON")
    if not isinstance(data, dict):
        return Fault("json_type", f"a JSON {type(data).__name__}, wanted an object")
    for name in FIELDS:
        if not isinstance(data.get(name), str | None):
            return Fault("json_type", f"field {name} is a {type(data[name]).__name__}, wanted a string or null")
    return make_row(
        language=data.get("language"),
        title=data.get("title"),
        description=data.get("text") or data.get("description"),
        page_url=data.get("page_url"),
        image_url=data.get("image_url"),
        image=data.get("image"),
    )
