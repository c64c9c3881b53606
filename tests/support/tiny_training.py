"""Small training data."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from support.tiny import png

from comem_ray.training.data.samples import TRAINING_SCHEMA


def write_samples(folder: Path, item_ids: list[str], rule: str = "exact") -> None:
    """Ten samples over eight items; every fourth question has no image."""
    folder.mkdir(exist_ok=True)
    rows = [
        {
            "sample_id": str(i),
            "question": f"Which number is this, {i}?",
            "image": png(50 + i) if i % 4 else None,
            "item_ids": [item_ids[(i + k) % 8] for k in range(3)],
            "answer": f"It is {i}.",
            "language": "en",
            "rule": rule,
            "gold": json.dumps([f"It is {i}."]),
            "provenance": "{}",
        }
        for i in range(10)
    ]
    pq.write_table(pa.Table.from_pylist(rows, TRAINING_SCHEMA), folder / "part-000000.parquet")
