"""What the benchmarks have in common: a question with its gold, how it is asked, the verdict on an answer, their files.

Knows no benchmark and no rule. Every fault of a file is a ValueError that names the file and the line.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.tasks.images import ImageAt

Row = dict[str, Any] | ValueError
"""A row of a file of questions, or what is wrong with it."""
Rules = Literal["official", "paper"]


@dataclass(frozen=True)
class Question:
    """`data_id` as the benchmark has it; `gold` is None where the benchmark leaves the question out of its score."""

    data_id: str | int
    gold: Any
    groups: dict[str, str] = field(default_factory=dict)  # {"split": ..., "type": ...}: where its score is counted


@dataclass(frozen=True)
class Asked:
    """What a model is asked: the words of a question, options among them, and where its image may be.

    `images` are names to look up, with an ending or without; the first that is there counts. `own` is an image in
    the question's own row. `entities` are Wikidata ids and titles of the English Wikipedia that the question is about.
    """

    text: str
    images: list[str] = field(default_factory=list)
    own: ImageAt | None = None
    entities: list[str] = field(default_factory=list)
    boxed: bool = True  # whether the answer is short enough for a box


@dataclass(frozen=True)
class Verdict:
    """`parsed` is the answer that the rule found, None where there is none; `score` in 0..1; `beside` more figures."""

    parsed: str | None
    score: float
    beside: dict[str, Any] = field(default_factory=dict)


MISSING = Verdict(None, 0.0)
Judge = Callable[[Question, str], Verdict]


def judged(judge: Judge, questions: Sequence[Question], answers: Sequence[str | None]) -> list[Verdict]:
    """The verdict on every answer; one that is missing (None) is wrong."""
    return [MISSING if a is None else judge(q, a) for q, a in zip(questions, answers, strict=True)]


def said(text: str) -> str | None:
    """A free answer as it stands, or None where it holds nothing."""
    return text if text.strip() else None


def read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE, line N", object) for every line that is not blank."""
    return strict(jsonl_rows(path))


def jsonl_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """As `read_jsonl`, with what is wrong with a line in its place. The file may be gzip, whatever its name."""
    try:
        with path.open("rb") as file, gzip.open(file) if file.peek(2)[:2] == b"\x1f\x8b" else file as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    where = f"{path}, line {number}"
                    yield where, _object(where, line)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def strict(rows: Iterable[tuple[str, Row]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows; raises what is wrong with the first that is none."""
    for where, row in rows:
        if isinstance(row, ValueError):
            raise row
        yield where, row


def loaded(rows: Iterable[tuple[str, Row]], question: Callable[[str, dict[str, Any]], Question]) -> list[Question]:
    """The question of every row, in order. ValueError for the first row that makes none, an id twice, or no row."""
    return unique((where, question(where, row)) for where, row in strict(rows))


def read_json(path: Path) -> Any:
    """The document in a JSON file."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error


def read_parquet(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE, row N", the named columns) for every row; other columns, the images among them, are not read."""
    try:
        with pq.ParquetFile(path) as file:
            if lacking := [name for name in columns if name not in file.schema_arrow.names]:
                raise ValueError(f"{path}: no column {', '.join(lacking)}")
            rows = (row for batch in file.iter_batches(columns=list(columns)) for row in batch.to_pylist())
            yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, start=1))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{path}: not parquet: {error}") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_predictions(path: Path) -> dict[str, tuple[str | int, str]]:
    """id as a string -> (data_id as it stands, prediction). ValueError for no prediction, and for an id said twice."""
    found: dict[str, tuple[str | int, str]] = {}
    for where, row in read_jsonl(path):
        data_id, text = identity(where, row, "data_id"), row.get("prediction")
        if not isinstance(text, str):
            raise ValueError(f"{where}: field 'prediction' is {_shown(row, 'prediction')}, wanted a string")
        if str(data_id) in found:
            raise ValueError(f"{where}: a second prediction for data_id {data_id!r}")
        found[str(data_id)] = data_id, text
    return found


def identity(where: str, row: dict[str, Any], name: str) -> str | int:
    """The id in field `name`: a string or a whole number."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{where}: field {name!r} is {_shown(row, name)}, wanted a string or a whole number")
    return value


def text_field(where: str, row: dict[str, Any], name: str) -> str:
    """The string in field `name`."""
    value = row.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{where}: field {name!r} is {_shown(row, name)}, wanted a string")
    return value


def texts_field(where: str, row: dict[str, Any], name: str) -> list[str]:
    """The strings in field `name`, one at least."""
    value = row.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{where}: field {name!r} is {_shown(row, name)}, wanted a list of strings, one at least")
    return value


def unique(questions: Iterable[tuple[str, Question]]) -> list[Question]:
    """The questions, in order. ValueError where an id comes twice, or there are none."""
    found: dict[str, Question] = {}
    for where, question in questions:
        if str(question.data_id) in found:
            raise ValueError(f"{where}: a second question with id {question.data_id!r}")
        found[str(question.data_id)] = question
    if not found:
        raise ValueError("the reference files hold no question")
    return list(found.values())


def _object(where: str, line: bytes) -> Row:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return ValueError(f"{where}: byte {error.start} is no UTF-8")
    except (ValueError, RecursionError) as error:
        return ValueError(f"{where}: not JSON: {error}")
    if not isinstance(row, dict):
        return ValueError(f"{where}: a JSON {type(row).__name__}, wanted an object")
    return row


def _shown(row: dict[str, Any], name: str) -> str:
    return f"{row[name]!r}"[:80] if name in row else "missing"
