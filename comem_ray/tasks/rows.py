"""Rows of JSONL, CSV and JSON files that hold questions; what is wrong with a row is a value, not an exception.

Knows no benchmark. JSONL may be gzip.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comem_ray.knowledge.sources.lines import read_lines

MAX_FIELD = 16 * 2**20  # characters of a CSV field; Encyclopedic-VQA holds whole sections as evidence


class RejectedRow(ValueError):
    """What is wrong with a row: a reason code and a sentence."""

    def __init__(self, reason: str, detail: str, data_id: str | None = None):
        super().__init__(detail)
        self.reason, self.detail, self.data_id = reason, detail, data_id


Numbered = tuple[int, dict[str, Any] | RejectedRow]
"""Number of the row (0 is the first, behind a header) and its fields, or what is wrong with it."""


def json_rows(path: Path) -> Iterator[Numbered]:
    """One JSON object a line; empty lines are passed over."""
    for number, (line, fault) in enumerate(read_lines(path)):
        if fault is not None:
            yield number, RejectedRow(fault.reason, fault.detail)
        elif line.strip():
            yield number, _object(line)


def _object(line: bytes) -> dict[str, Any] | RejectedRow:
    try:
        data = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RejectedRow("bad_utf8", f"byte {error.start} is no UTF-8")
    except (ValueError, RecursionError):
        return RejectedRow("bad_json", "the line is not JSON")
    return (
        data if isinstance(data, dict) else RejectedRow("bad_json", f"a JSON {type(data).__name__}, wanted an object")
    )


def csv_rows(path: Path) -> Iterator[Numbered]:
    """Comma-separated rows under a header; quoted fields may hold line breaks."""
    csv.field_size_limit(MAX_FIELD)
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        number = 0
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, RejectedRow("bad_csv", str(error))
            else:
                if row:
                    yield number, _fields(header, row)
            number += 1


def _fields(header: list[str], row: list[str]) -> dict[str, Any] | RejectedRow:
    if len(row) != len(header):
        return RejectedRow("bad_csv", f"{len(row)} fields, the header names {len(header)}")
    if any("\udc80" <= c <= "\udcff" for field in row for c in field):
        return RejectedRow("bad_utf8", "the row holds bytes that are no UTF-8")
    return dict(zip(header, row, strict=True))


def json_lists(path: Path, field: str) -> list[Any] | RejectedRow:
    """The list under `field` of a JSON file; Bad where the file is no JSON or has none."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return RejectedRow("bad_json", f"{path.name} cannot be read as JSON: {error}")
    found = data.get(field) if isinstance(data, dict) else None
    return found if isinstance(found, list) else RejectedRow("bad_json", f"{path.name} has no list {field!r}")
