"""Questions to evaluate with: a parquet file, one row a question, whatever benchmark they come from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.artifacts import ArtifactError, write_parquet
from comem_ray.evaluation.scoring import Rule

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


@dataclass(frozen=True)
class EvaluationQuestion:
    data_id: str
    question: str
    picture: bytes | None
    rule: Rule
    gold: Any
    language: str = "en"
    gold_items: list[str] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)


def write_questions(path: Path, questions: Iterable[EvaluationQuestion]) -> int:
    """Writes the file; returns the number of questions."""
    rows = [{**asdict(q), "gold": json.dumps(q.gold), "groups": json.dumps(q.groups)} for q in questions]
    write_parquet(path, pa.Table.from_pylist(rows, EVALUATION_SCHEMA))
    return len(rows)


def read_questions(path: Path) -> list[EvaluationQuestion]:
    """The questions of a file. Raises ArtifactError where there is none, or an id stands twice."""
    if not path.is_file():
        raise ArtifactError(f"there is no file of questions {path}: evaluation.questions names it")
    rows = pq.read_table(path, schema=EVALUATION_SCHEMA).to_pylist()
    seen: set[str] = set()
    if twice := [r["data_id"] for r in rows if r["data_id"] in seen or seen.add(r["data_id"])]:  # type: ignore[func-returns-value]
        raise ArtifactError(f"{path} has {twice[0]!r} twice")
    return [EvaluationQuestion(**{**r, "gold": json.loads(r["gold"]), "groups": json.loads(r["groups"])}) for r in rows]
