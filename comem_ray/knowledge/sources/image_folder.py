"""A folder of images with their captions: beside each image, or in one file of them all.

    metadata.jsonl, metadata.csv, captions.jsonl, captions.csv
                    (in the folder itself) one row per image: `file_name`, a path below the folder, and its texts, as
                    the ImageFolder of Hugging Face `datasets` has it
    otherwise       files of one name are a row: `x.jpg` with `x.txt` (the caption) or `x.json` (its columns), in the
                    folder and below it, in the order of their paths

Images are paths here: they are loaded when items are made.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from comem_ray.knowledge.sources.files import SourceFile
from comem_ray.knowledge.sources.keyed import ENDINGS, IMAGE_ENDINGS, MAX_FILE_BYTES, keyed_row
from comem_ray.knowledge.sources.lines import read_lines
from comem_ray.knowledge.sources.named_rows import NAMES, NamedRow, batches, fault_row, parse, used_names
from comem_ray.knowledge.sources.rows import RowFault

__all__ = ["METADATA", "parse", "read", "related"]

METADATA = ("metadata.jsonl", "metadata.csv", "captions.jsonl", "captions.csv")


def related(file: SourceFile) -> list[Path]:
    """Files whose change is a change of the rows: the metadata, or else everything in the folder."""
    metadata = metadata_file(Path(file.path))
    return [metadata] if metadata else [path for path, _ in _walk(Path(file.path))]


def metadata_file(folder: Path) -> Path | None:
    """The file that names the folder's images; None if there is none."""
    return next((folder / name for name in METADATA if (folder / name).is_file()), None)


def read(file: SourceFile, rows: int) -> Iterator[pa.RecordBatch]:
    """The chunks of a folder, each of at most `rows` rows."""
    folder, names = Path(file.path), used_names(file.columns)
    metadata = metadata_file(folder)
    if metadata is None:
        named = _neighbours(folder, names, dict(file.columns).get("image", "image"))
    else:
        named = (_csv_rows if metadata.suffix == ".csv" else _json_rows)(metadata, names)
    return batches(_or_empty(named), rows, file.columns)


def _or_empty(rows: Iterator[NamedRow]) -> Iterator[NamedRow]:
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        yield fault_row("source_empty", "the folder holds no image and no caption")


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """The files below a folder that may be part of a row, in order, each with its path from there; no hidden ones."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if "." in name[1:] and not name.startswith(".") and _ending(name) in ENDINGS:
                path = Path(parent, name)
                yield path, path.relative_to(folder).as_posix()


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _neighbours(folder: Path, names: set[str], image_name: str) -> Iterator[NamedRow]:
    """A row for each name, of the files that share it up to their last dot. Names in order stand together."""
    key, held = "", dict[str, Path]()
    for path, name in sorted(_walk(folder), key=lambda pair: (pair[1].rpartition(".")[0], pair[1])):
        own = name.rpartition(".")[0]
        if own != key and held:
            yield _of_files(key, held, names, image_name)
            held = {}
        key = own
        held.setdefault(_ending(name), path)
    if held:
        yield _of_files(key, held, names, image_name)


def _of_files(key: str, files: dict[str, Path], names: set[str], image_name: str) -> NamedRow:
    row = keyed_row(key, {ending: _content(files[ending]) for ending in ("json", "txt") if ending in files}, names)
    image = next((f"{key}{files[e].suffix}" for e in IMAGE_ENDINGS if e in files), None)
    return row if image is None else NamedRow({**row.values, image_name: image}, fault=row.fault)


def _content(path: Path) -> bytes | RowFault:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return RowFault("row_too_long", f"{path.name} has more than {MAX_FILE_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as error:
        return RowFault("source_unreadable", f"{path.name} cannot be read: {error.strerror}", True)


def _json_rows(path: Path, names: set[str]) -> Iterator[NamedRow]:
    for raw, fault in read_lines(path):
        if fault is not None:
            yield NamedRow({"line": raw.decode("utf-8", "replace")}, fault=fault)
            continue
        row = keyed_row("line", {"json": raw}, names)
        values = {name: value for name, value in row.values.items() if name in names}
        yield NamedRow(values or {"line": raw[:1_000].decode("utf-8", "replace")}, fault=row.fault)


def _csv_rows(path: Path, names: set[str]) -> Iterator[NamedRow]:
    csv.field_size_limit(MAX_FILE_BYTES)
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if not set(header) & set(NAMES["image"]) and not set(header) & names:
                yield fault_row("header_columns", f"the header names {header[:20]}, wanted file_name and a text")
                return
            while True:
                try:
                    row = next(rows, None)
                except csv.Error as error:
                    yield fault_row("csv_invalid", f"line {rows.line_num}: {error}")
                    continue
                if row is None:
                    return
                yield _csv_row(row, header, names, rows.line_num)
    except OSError as error:
        yield fault_row("source_unreadable", f"{path.name} cannot be read: {error.strerror}", True)


def _csv_row(row: list[str], header: list[str], names: set[str], line: int) -> NamedRow:
    if not row:
        return fault_row("empty_line", f"line {line} is empty")
    if len(row) != len(header):
        return fault_row("column_count", f"line {line} has {len(row)} columns, the header {len(header)}")
    values: dict[str, Any] = {name: value for name, value in zip(header, row, strict=True) if name in names}
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return fault_row("bad_utf8", f"line {line} is not UTF-8")
    return NamedRow(values)
