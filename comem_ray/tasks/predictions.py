r"""Reads a file of predictions: our own form, or the form that the authors of a task score.

    form                                            whose
    JSONL of {"data_id", "prediction"}              ours, InfoSeek's; OVEN's with the entity that a name is linked to
    JSON list of {"question_id", "answer"}          OK-VQA and VQA
    JSON object id -> text                          A-OKVQA, one setting
    JSON object id -> {"multiple_choice", "direct_answer"}    A-OKVQA, its leaderboard
    JSON list of {"image_id", "caption"}            COCO captions
    JSONL or JSON list of {"qs_id", "output"}       MRAG-Bench
    JSONL of {"id", "output": [{"answer"}]}         KILT, of which ViQuAE is a part

Which fields hold id and text is told by the task (`Task.prediction_ids`, `Task.prediction_fields`); lists, objects and
JSONL, plain or gzip, are told by what they hold.

A text in which a backslash was not escaped, so that JSON read `\boxed` as a backspace and "oxed", is read as it was
meant where that is certain, and counted. Knows no rule.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comem_ray.tasks.files import FileRow, Place, RejectedRow, Rows, encodable, read_jsonl, rows_of, strict

if TYPE_CHECKING:
    from comem_ray.tasks.task import Task

Predictions = Mapping[str, tuple[str | int, str]]
"""Id of a question as a string -> (the id as it stands, what was answered)."""

ID, TEXT = "data_id", "prediction"
_GZIP = b"\x1f\x8b"

# What JSON makes of a command of LaTeX whose backslash stands alone: \b, \f, \t, \r and \n are control characters.
_LOST = re.compile(
    r"\x08(?=[A-Za-z])|\x0c(?=rac\s*\{|box\s*\{|ramebox\s*\{)|\r(?=ight(?:arrow)?\b)|\n(?=ewline\b|oindent\b)"
    r"|\t(?=ext(?:bf|it|rm|sf|tt|sc|up|md|normal|color)?\s*\{|imes(?![A-Za-z])|frac\s*\{)"
)
_LETTERS = {"\x08": "b", "\x0c": "f", "\t": "t", "\r": "r", "\n": "n"}
_NO_BACKSLASH = re.compile(r"(?<![\\A-Za-z])b?oxed(?=\s*\{)")
_BACKSLASH = re.compile(r'\\(?:(["\\/bfnrt]|u[0-9a-fA-F]{4})|)')
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


@dataclass
class PredictionFile:
    """The predictions of a file, and how many of its texts look badly escaped."""

    path: Path
    predictions: dict[str, tuple[str | int, str]] = field(default_factory=dict)
    repaired: int = 0  # texts that were read as they were meant
    doubtful: int = 0  # texts that hold control characters which nothing explains

    def warnings(self) -> list[str]:
        """What a reader of the figures must know of the file."""
        count, advice = f"of {len(self.predictions)} predictions", "write the file with a JSON library (json.dumps)"
        warnings = []
        if self.repaired:
            warnings.append(
                f"{self.path}: {self.repaired} {count} are badly escaped (the backslash of \\boxed or of another "
                f"command was lost when the file was written); they were read as meant: {advice}"
            )
        if self.doubtful:
            warnings.append(
                f"{self.path}: {self.doubtful} {count} hold control characters, as where backslashes are not escaped; "
                f"they were scored as they stand: {advice}"
            )
        return warnings

    def add(self, place: Place, data_id: str | int, text: str, repaired: bool = False) -> None:
        """Adds a prediction. ValueError for an id that comes twice."""
        if str(data_id) in self.predictions:
            raise ValueError(f"{place}: a second prediction for {ID} {data_id!r}")
        meant = as_meant(text)
        self.repaired += meant != text or (repaired and "\\" in text)
        self.doubtful += _CONTROL.search(meant) is not None
        self.predictions[str(data_id)] = data_id, meant


def read_predictions(path: Path, task: Task) -> PredictionFile:
    """The predictions of a file for `task`. ValueError, which names place and form, for what cannot be read."""
    file, json_reader = PredictionFile(path), _JsonReader()
    for row in strict(_rows(path, task, json_reader)):
        data_id, text = _id(row, task), task.prediction_text(row)
        file.add(row.place, data_id, text, json_reader.repaired)
    return file


def as_meant(text: str) -> str:
    r"""`text` with the backslashes that a writer without escaping lost: a backspace and "oxed{" are `\boxed{`."""
    mended = _LOST.sub(lambda match: "\\" + _LETTERS[match.group()], text)
    return _NO_BACKSLASH.sub(r"\\boxed", mended)


class _JsonReader:
    r"""Reads JSON; a text with backslashes that JSON does not know (`\mathrm`) as if they were escaped."""

    def __init__(self) -> None:
        self.repaired = False  # whether the last text was one of those

    def loads(self, text: str) -> Any:
        """The value of `text`. Raises ValueError where there is none."""
        self.repaired = False
        try:
            return json.loads(text)
        except ValueError:
            self.repaired = True
            try:
                return json.loads(_BACKSLASH.sub(lambda match: match.group() if match.group(1) else r"\\", text))
            except ValueError:
                self.repaired = False
            raise


def _id(row: FileRow, task: Task) -> str | int:
    name = next((name for name in (ID, task.id_field, *task.prediction_ids) if name in row.fields), None)
    if name is None:
        raise RejectedRow("bad_field", f"field {ID!r} is missing: {task.wanted_prediction()}", row.place)
    return row.identity(name)


def _rows(path: Path, task: Task, reader: _JsonReader) -> Rows:
    """The rows of JSONL, of a JSON list, or of a JSON object that names predictions by id."""
    document = _document(path, reader)
    if isinstance(document, list):
        return rows_of(path, "prediction", document)
    if isinstance(document, dict) and not {ID, TEXT, task.id_field, *task.prediction_ids} & document.keys():
        return _entries(path, document)
    return read_jsonl(path, reader.loads)


def _document(path: Path, reader: _JsonReader) -> Any:
    """The one JSON value of a file; None where it holds none or several, as JSONL does."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data.startswith(_GZIP) else data).decode("utf-8-sig")
        return reader.loads(text) if text.lstrip().startswith(("[", "{")) else None
    except (OSError, EOFError, ValueError, RecursionError):  # reading it by lines says what is wrong
        return None


def _entries(path: Path, document: dict[str, Any]) -> Rows:
    """The entries of {id: text} or {id: {...}}."""
    for number, (data_id, value) in enumerate(document.items()):
        fields = value if isinstance(value, dict) else {TEXT: value}
        yield FileRow(Place(path, "entry", number), {**fields, ID: encodable(ID, data_id)})
