"""Questions to evaluate with, whatever benchmark they come from; and our own file of them, parquet, one row a question.

A question's image stays where it is until the question is asked (`opened`). Knows no benchmark and no model.
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
from comem_ray.knowledge.images import ImageError, open_image
from comem_ray.tasks.images import ImageAt, ImageReader
from comem_ray.tasks.rules.scoring import Rule

EVALUATION_SCHEMA = pa.schema(
    [
        pa.field("data_id", pa.string(), nullable=False),  # the benchmark's own id
        pa.field("question", pa.string(), nullable=False),
        pa.field("image", pa.binary()),  # JPEG or PNG; null for a question without one
        pa.field("rule", pa.string(), nullable=False),  # of comem_ray.tasks.rules.scoring
        pa.field("gold", pa.string(), nullable=False),  # JSON, in the rule's own form
        pa.field("language", pa.string(), nullable=False),
        pa.field("gold_items", pa.list_(pa.string()), nullable=False),  # item_ids that hold the answer, if known
        pa.field("groups", pa.string(), nullable=False),  # JSON: name -> value, for figures of parts
    ]
)
MISSING = "image_missing"


@dataclass(frozen=True)
class EvaluationQuestion:
    """`data_id` tells it from all others of the evaluation; `own_id` is the benchmark's.

    `image` are the bytes, once they are read from `image_at`. With a `fault` it cannot be asked, and counts as
    wrong.
    """

    data_id: str
    question: str
    image: bytes | None
    rule: Rule | Literal["official"]  # "official": that of its `benchmark`
    gold: Any
    language: str = "en"
    gold_items: list[str] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    source: str = ""  # name of the source it comes from; "": evaluation.questions
    benchmark: str = ""  # whose rule is the official one
    own_id: str | int = ""
    image_at: ImageAt | None = None
    fault: str | None = None


def write_questions(path: Path, questions: Iterable[EvaluationQuestion]) -> int:
    """Writes the file; returns the number of questions."""
    rows = [{**asdict(q), "gold": json.dumps(q.gold), "groups": json.dumps(q.groups)} for q in questions]
    write_parquet(path, pa.Table.from_pylist(rows, EVALUATION_SCHEMA))
    return len(rows)


def read_questions(path: Path) -> list[EvaluationQuestion]:
    """The questions of a file, their images left in it. Raises ArtifactError where there is none, or an id twice."""
    if not path.is_file():
        raise ArtifactError(f"there is no file of questions {path}: evaluation.questions names it")
    table = pq.read_table(path, schema=EVALUATION_SCHEMA)
    marks = [None if p is None else sha256(p).hexdigest() for p in table["image"].to_pylist()]
    rows, seen = table.drop_columns(["image"]).to_pylist(), set[str]()
    if twice := [r["data_id"] for r in rows if r["data_id"] in seen or seen.add(r["data_id"])]:  # type: ignore[func-returns-value]
        raise ArtifactError(f"{path} has {twice[0]!r} twice")
    return [_question(path, n, row, mark) for n, (row, mark) in enumerate(zip(rows, marks, strict=True))]


def _question(path: Path, number: int, row: dict[str, Any], mark: str | None) -> EvaluationQuestion:
    fields = {**row, "gold": json.loads(row["gold"]), "groups": json.loads(row["groups"])}
    at = None if mark is None else ImageAt(str(path), "image", number, mark)
    return EvaluationQuestion(**fields, image=None, own_id=row["data_id"], image_at=at)


def opened(question: EvaluationQuestion, reader: ImageReader, max_pixels: int) -> EvaluationQuestion:
    """The question with its image's bytes, or with the fault that no image can be made of them."""
    if question.fault or question.image_at is None:
        return question
    try:
        data = reader.read(question.image_at)
        if not data:
            return replace(question, fault=MISSING)
        open_image(data, max_pixels)
    except ImageError as error:
        return replace(question, fault=error.reason)
    except (OSError, ValueError, pa.ArrowException):
        return replace(question, fault=MISSING)
    return replace(question, image=data)


def packed(questions: Sequence[EvaluationQuestion]) -> str:
    """Questions as JSON, for `unpacked`; the bytes of images are not in it."""
    return json.dumps([{**asdict(q), "image": None} for q in questions], sort_keys=True)


def unpacked(text: str) -> list[EvaluationQuestion]:
    """The questions of `packed`; tuples have become lists."""
    rows = json.loads(text)
    return [EvaluationQuestion(**{**r, "image_at": r["image_at"] and ImageAt(**r["image_at"])}) for r in rows]
