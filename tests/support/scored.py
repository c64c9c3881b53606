"""Files for scoring: references and predictions in a folder of the test, and the scorecard on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.tasks.scorecard import Scorecard, scorecard
from comem_ray.tasks.task import TaskFiles


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def document(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def card(
    task: str, references: Path | list[Path], answers: dict[Any, str], rules: str = "official", **files: Path
) -> Scorecard:
    """The scorecard of `answers` by id."""
    references = references if isinstance(references, list) else [references]
    rows = [{"data_id": data_id, "prediction": text} for data_id, text in answers.items()]
    predictions = jsonl(references[0].parent / "predictions.jsonl", rows)
    return scorecard(task, TaskFiles(references, **files), predictions, rules)


def scores(result: Scorecard) -> list[float]:
    return [row["score"] for row in result.rows]
