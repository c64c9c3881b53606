"""Questions to evaluate with, whatever benchmark they come from; and our own file of them, parquet, one row a question.

A question's picture stays where it is until the question is asked (`opened`). Knows no benchmark and no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.artifacts import ArtifactError, write_parquet
from comem_ray.evaluation.pictures import PictureAt, PictureReader
from comem_ray.evaluation.scoring import Rule
from comem_ray.images import PictureError, open_picture

EVALUATION_SCHEMA = pa.schema(
    [
        pa.field("data_id", pa.string(), nullable=False),  # the benchmark's own id
        pa.field("question", pa.string(), nullable=False),
        pa.field("picture", pa.binary()),  # JPEG or PNG; null for a question without one
        pa.field("rule", pa.string(), nullable=False),  # of comem_ray.evaluation.scoring
        pa.field("gold", pa.string(), nullable=False),  # JSON, in the rule's own form
        pa.field("language", pa.string(), nullable=False),
        pa.field("gold_items", pa.list_(pa.string()), nullable=False),  # item_ids that hold the answer, if known
        pa.field("groups", pa.string(), nullable=False),  # JSON: name -> value, for figures of parts
    ]
)
MISSING = "picture_missing"


@dataclass(frozen=True)
class EvaluationQuestion:
    """`data_id` tells it from all others of the evaluation; `own_id` is the benchmark's.

    `picture` are the bytes, once they are read from `picture_at`. With a `fault` it cannot be asked, and counts as
    wrong.
    """

    data_id: str
    question: str
    picture: bytes | None
    rule: Rule | Literal["official"]  # "official": that of its `benchmark`
    gold: Any
    language: str = "en"
    gold_items: list[str] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    source: str = ""  # name of the source it comes from; "": evaluation.questions
    benchmark: str = ""  # whose rule is the official one
    own_id: str | int = ""
    picture_at: PictureAt | None = None
    fault: str | None = None


def write_questions(path: Path, questions: Iterable[EvaluationQuestion]) -> int:
    """Writes the file; returns the number of questions."""
    rows = [{**asdict(q), "gold": json.dumps(q.gold), "groups": json.dumps(q.groups)} for q in questions]
    write_parquet(path, pa.Table.from_pylist(rows, EVALUATION_SCHEMA))
    return len(rows)


def read_questions(path: Path) -> list[EvaluationQuestion]:
    """The questions of a file, their pictures left in it. Raises ArtifactError where there is none, or an id twice."""
    if not path.is_file():
        raise ArtifactError(f"there is no file of questions {path}: evaluation.questions names it")
    table = pq.read_table(path, schema=EVALUATION_SCHEMA)
    marks = [None if p is None else sha256(p).hexdigest() for p in table["picture"].to_pylist()]
    rows, seen = table.drop_columns(["picture"]).to_pylist(), set[str]()
    if twice := [r["data_id"] for r in rows if r["data_id"] in seen or seen.add(r["data_id"])]:  # type: ignore[func-returns-value]
        raise ArtifactError(f"{path} has {twice[0]!r} twice")
    return [_question(path, n, row, mark) for n, (row, mark) in enumerate(zip(rows, marks, strict=True))]


def _question(path: Path, number: int, row: dict[str, Any], mark: str | None) -> EvaluationQuestion:
    fields = {**row, "gold": json.loads(row["gold"]), "groups": json.loads(row["groups"])}
    at = None if mark is None else PictureAt(str(path), "picture", number, mark)
    return EvaluationQuestion(**fields, picture=None, own_id=row["data_id"], picture_at=at)


def opened(question: EvaluationQuestion, reader: PictureReader, max_pixels: int) -> EvaluationQuestion:
    """The question with its picture's bytes, or with the fault that no picture can be made of them."""
    if question.fault or question.picture_at is None:
        return question
    try:
        data = reader.read(question.picture_at)
        if not data:
            return replace(question, fault=MISSING)
        open_picture(data, max_pixels)
    except PictureError as error:
        return replace(question, fault=error.reason)
    except (OSError, ValueError, pa.ArrowException):
        return replace(question, fault=MISSING)
    return replace(question, picture=data)


def packed(questions: Sequence[EvaluationQuestion]) -> str:
    """Questions as JSON, for `unpacked`; the bytes of pictures are not in it."""
    return json.dumps([{**asdict(q), "picture": None} for q in questions], sort_keys=True)


def unpacked(text: str) -> list[EvaluationQuestion]:
    """The questions of `packed`; tuples have become lists."""
    rows = json.loads(text)
    return [EvaluationQuestion(**{**r, "picture_at": r["picture_at"] and PictureAt(**r["picture_at"])}) for r in rows]
