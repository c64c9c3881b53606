"""The predictions of an evaluation: their columns, the shards of a finished stage, and the files for `comem score`.

The unit TIMES of the stage holds the measured times, every other unit predictions. Knows nothing of models or Ray.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.artifacts import Manifest, Record, check_shard, write_atomic
from comem_ray.tasks.example import Example

STAGE = "evaluate"
TIMES = "times"
PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("data_id", pa.string(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("mode", pa.string(), nullable=False),
        pa.field("k", pa.int32(), nullable=False),
        pa.field("gold_position", pa.int32()),  # where the right item was put, from 1; null: where retrieval had it
        pa.field("knowledge", pa.int32(), nullable=False),  # items that retrieval searched; 0 in mode none
        pa.field("prediction", pa.string(), nullable=False),
        pa.field("fault", pa.string()),  # why there is no answer: "image_missing", "prompt_too_long", ...; else null
        pa.field("fault_detail", pa.string()),  # what the error said, where there was one
        pa.field("score", pa.float64()),  # 0..1; null where its task scores answers together (report.json has those)
        pa.field("rank", pa.int32()),  # of the right item in retrieval, from 1; 0: not retrieved; null: not known
        pa.field("item_ids", pa.list_(pa.string()), nullable=False),  # items of the prompt, best first
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("memory_vectors", pa.int32(), nullable=False),
        pa.field("completion_tokens", pa.int32(), nullable=False),
    ]
)
TIMES_SCHEMA = pa.schema(
    [
        pa.field("data_id", pa.string(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("first_token_ms", pa.float64(), nullable=False),
        pa.field("answer_ms", pa.float64(), nullable=False),
    ]
)


def read_predictions(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """The rows (PREDICTION_SCHEMA) of the finished stage in `folder`, unit by unit in the order of their names."""
    records = sorted((r for r in manifest.records if r.unit != TIMES), key=lambda r: r.unit)
    return [row for record in records for row in _rows(folder, record)]


def read_times(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """The measured times (TIMES_SCHEMA) of the finished stage in `folder`; none where no question was timed."""
    return [row for record in manifest.records if record.unit == TIMES for row in _rows(folder, record)]


def _rows(folder: Path, record: Record) -> list[dict[str, Any]]:
    files = [check_shard(folder, shard, STAGE) for shard in record.shards if shard.name.endswith(".parquet")]
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def write_prediction_files(folder: Path, questions: Sequence[Example], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes `<folder>/<source>/<arm>.jsonl` for `comem score`, one {"data_id", "prediction"} per line.

    A question that was not asked has no line. The questions of `evaluation.questions` have no source: their files are
    in `folder` itself.
    """
    by_id = {question.data_id: question for question in questions}
    lines: dict[Path, list[str]] = defaultdict(list)
    for row in rows:
        question = by_id[row["data_id"]]
        line = json.dumps({"data_id": question.own_id, "prediction": row["prediction"]}, ensure_ascii=False)
        lines[folder / question.source / f"{file_stem(row['arm'])}.jsonl"] += [] if row["fault"] else [f"{line}\n"]
    for path, some in lines.items():
        _write_text(path, "".join(some))


def write_faults(path: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Writes the rows without an answer, {"data_id", "arm", "fault", "detail"} per line; returns questions by fault."""
    faults = [row for row in rows if row["fault"]]
    lines = [
        {"data_id": row["data_id"], "arm": row["arm"], "fault": row["fault"], "detail": row.get("fault_detail")}
        for row in faults
    ]
    _write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return dict(sorted(Counter(fault for _, fault in {(row["data_id"], row["fault"]) for row in faults}).items()))


def _write_text(path: Path, text: str) -> None:
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def file_stem(arm: str) -> str:
    """The name of an arm as a file name: "memory, k=3" -> "memory-k-3"."""
    return re.sub(r"\W+", "-", arm)
