"""Readers of the files that tasks are published in: JSONL (plain or gzip), JSON, CSV, parquet.

A row is a `FileRow`, or a `RejectedRow` that says what is wrong with it and where it stands. JSON, CSV or parquet that
cannot be read at all is a ValueError. Of JSONL that breaks off, the rows before the break are read, and the last is
rejected for a reason in BROKEN_FILE. Knows no task.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.knowledge.sources.lines import read_lines

MAX_FIELD = 16 * 2**20  # characters of a CSV field; Encyclopedic-VQA holds whole sections as evidence
BROKEN_FILE = frozenset(["source_unreadable", "gz_corrupt", "gz_truncated"])
"""Reasons that say that a file breaks off: rows behind this one are lost."""


@dataclass(frozen=True)
class Place:
    """Where a row stands. Rows count from 0; the first is the one behind a header."""

    path: Path
    unit: str  # what messages call a row of this file: "line", "row", "annotation", ...
    number: int

    def __str__(self) -> str:
        return f"{self.path}, {self.unit} {self.number + 1}"


class RejectedRow(ValueError):
    """A row that makes no example: a reason code, a sentence, the place and, where known, the example's id."""

    def __init__(self, reason: str, detail: str, place: Place | None = None, data_id: Any = None):
        super().__init__(detail)
        self.reason, self.detail, self.place = reason, detail, place
        self.data_id = str(data_id) if isinstance(data_id, str | int) else None

    def __str__(self) -> str:
        if self.place is None:
            return self.detail
        return f"{self.place.path if self.reason in BROKEN_FILE else self.place}: {self.detail}"

    def at(self, row: FileRow, id_field: str) -> RejectedRow:
        """The same, with the place and the id of the row it was raised for."""
        known = row.get(id_field) if self.data_id is None else self.data_id
        return RejectedRow(self.reason, self.detail, self.place or row.place, known)


@dataclass(frozen=True)
class FileRow:
    """The fields of a row, and where it stands. What a field must be and is not raises RejectedRow."""

    place: Place
    fields: dict[str, Any]

    def get(self, name: str) -> Any:
        """The value of field `name`, whatever it is; None where there is none."""
        return self.fields.get(name)

    def text(self, name: str) -> str:
        """The string in field `name`."""
        value = self.get(name)
        if not isinstance(value, str):
            raise self._unwanted(name, "a string")
        return encodable(name, value)

    def texts(self, name: str) -> list[str]:
        """The strings in field `name`, one at least."""
        value = self.get(name)
        if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
            raise self._unwanted(name, "a list of strings, one at least")
        return value

    def identity(self, name: str) -> str | int:
        """The id in field `name`: a string or a whole number."""
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self._unwanted(name, "a string or a whole number")
        return encodable(name, value) if isinstance(value, str) else value

    def _unwanted(self, name: str, wanted: str) -> RejectedRow:
        value = f"{self.fields[name]!r}"[:80] if name in self.fields else "missing"
        return RejectedRow("bad_field", f"field {name!r} is {value}, wanted {wanted}", self.place)


Rows = Iterator[FileRow | RejectedRow]


def read_jsonl(path: Path, loads: Callable[[str], Any] = json.loads) -> Rows:
    """One JSON object per line; blank lines are passed over. The file may be gzip, whatever its name."""
    for number, (line, fault) in enumerate(read_lines(path)):
        place = Place(path, "line", number)
        if fault is not None:
            yield RejectedRow(fault.reason, fault.detail, place)
        elif line.strip():
            yield _object(place, line, loads)


def read_json(path: Path) -> Any:
    """The document in a JSON file. ValueError where there is none."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error


def rows_of(path: Path, unit: str, values: Iterable[Any]) -> Rows:
    """The objects of a list in a JSON document."""
    for number, value in enumerate(values):
        place = Place(path, unit, number)
        if isinstance(value, dict):
            yield FileRow(place, value)
        else:
            yield RejectedRow("bad_json", f"a JSON {type(value).__name__}, wanted an object", place)


def read_csv(path: Path) -> Rows:
    """Comma-separated rows under a header; quoted fields may hold line breaks."""
    csv.field_size_limit(MAX_FIELD)
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            for number, row in enumerate(_csv_rows(reader)):
                if row:
                    yield _csv_row(Place(path, "row", number), header, row)
    except OSError as error:
        raise _unreadable(path, error) from error


def read_parquet(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[FileRow]:
    """The named columns of every row, those of `optional` where the file has them; other columns are not read."""
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if lacking := [name for name in required if name not in names]:
                raise ValueError(f"{path}: no column {', '.join(lacking)}")
            columns = [*required, *(name for name in optional if name in names)]
            rows = (row for batch in file.iter_batches(columns=columns) for row in batch.to_pylist())
            yield from (FileRow(Place(path, "row", number), row) for number, row in enumerate(rows))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{path}: not parquet: {error}") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def strict(rows: Rows) -> Iterator[FileRow]:
    """The rows. Raises the first that is rejected."""
    for row in rows:
        if isinstance(row, RejectedRow):
            raise row
        yield row


def encodable(name: str, text: str) -> str:
    """`text`. Raises RejectedRow where it holds half of an escaped pair, which UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RejectedRow("bad_utf8", f"field {name!r} is {text[:80]!r}, which UTF-8 cannot hold") from error
    return text


def _object(place: Place, line: bytes, loads: Callable[[str], Any]) -> FileRow | RejectedRow:
    try:
        value = loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RejectedRow("bad_utf8", f"byte {error.start} is not UTF-8", place)
    except (ValueError, RecursionError) as error:
        return RejectedRow("bad_json", f"not JSON: {error}", place)
    if not isinstance(value, dict):
        return RejectedRow("bad_json", f"a JSON {type(value).__name__}, wanted an object", place)
    return FileRow(place, value)


def _csv_rows(reader: Iterator[list[str]]) -> Iterator[list[str] | csv.Error]:
    """The rows of a reader, with the error in the place of one that it cannot read."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield error


def _csv_row(place: Place, header: list[str], row: list[str] | csv.Error) -> FileRow | RejectedRow:
    if isinstance(row, csv.Error):
        return RejectedRow("bad_csv", str(row), place)
    if len(row) != len(header):
        return RejectedRow("bad_csv", f"{len(row)} fields, the header names {len(header)}", place)
    if any("\udc80" <= c <= "\udcff" for field in row for c in field):
        return RejectedRow("bad_utf8", "the row holds bytes that are not UTF-8", place)
    return FileRow(place, dict(zip(header, row, strict=True)))


def _unreadable(path: Path, error: OSError) -> ValueError:
    return ValueError(f"{path}: cannot be read: {error.strerror or error}")
