"""A finished evaluation on disk, as jobs.evaluate leaves one, its answers written by hand: no model, no Ray."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from support.tiny import png, write_items

from comem_ray.artifacts import StageFolder, write_json, write_parquet
from comem_ray.config import Config
from comem_ray.evaluation.aggregation import compute_figures
from comem_ray.evaluation.arms import Arm, arms
from comem_ray.evaluation.predictions import PREDICTION_SCHEMA, STAGE, TIMES, TIMES_SCHEMA
from comem_ray.report.evaluation import FinishedEvaluation, read_evaluation
from comem_ray.tasks.example import Example

NASTY = '<script>window.broken = 1</script><img src=x onerror="window.broken = 1">'
ITEMS = 14


def write_evaluation(config: Config, count: int, timed: int = 2) -> FinishedEvaluation:
    """`count` questions over 14 items: rag is right on the even ones, memory on all but every third, none on none."""
    ids = write_items(config.folder("items"), [9, ITEMS - 9])
    questions = [question(i, ids) for i in range(count)]
    rows = [row(q, i, arm, ids) for i, q in enumerate(questions) for arm in arms(config.evaluation)]
    times = [
        {"data_id": q.data_id, "arm": arm.name, "first_token_ms": 10.0 + arm.k, "answer_ms": 20.0 + arm.k}
        for q in questions[:timed]
        for arm in arms(config.evaluation)
    ]
    memory = StageFolder(config.folder("memory"), "encode_memory", {"encoder": "tiny"})
    memory.close([])
    stage = StageFolder(config.folder("evaluation"), STAGE, {"encoder": {"backbone": "b" * 64, "adapter": {}}})
    tables = {"part-000000": pa.Table.from_pylist(rows, PREDICTION_SCHEMA)}
    tables[TIMES] = pa.Table.from_pylist(times, TIMES_SCHEMA)
    for name, table in tables.items():
        write_parquet(stage.path / f"{name}.parquet", table)
        stage.commit(name, "", {f"{name}.parquet": len(table)}, {"rows": len(table)})
    stage.close(tables)
    write_json(stage.path / "report.json", compute_figures(questions, rows, times, config.evaluation.k).to_json())
    return read_evaluation(config, config.evaluation, questions)


def question(i: int, ids: list[str]) -> Example:
    """Every fifth has no image; number 1 has a text that would run if it were not escaped."""
    text = NASTY if i == 1 else f"Which number is this, {i}?"
    groups = {"parity": ["even", "odd"][i % 2], "third": str(i % 3)}
    image = png(i, 320, 240) if i % 5 != 4 else None
    gold = ids[i % len(ids)]
    return Example(f"q{i}", text, image, "exact", [f"number {i}"], ["en", "ja"][i % 2], [gold], groups)


def row(question: Example, i: int, arm: Arm, ids: list[str]) -> dict[str, Any]:
    """A row of PREDICTION_SCHEMA. The right item is retrieved at rank 1, 2, 3 or not at all, in turn."""
    gold = question.gold_items[0]
    rank = (i + 1) % 4
    others = [item for item in ids if item != gold]
    retrieved = [*others[: rank - 1], gold, *others[rank - 1 :]] if rank else others
    right = {"none": False, "rag": i % 2 == 0, "memory": i % 3 != 0}[arm.mode]
    return {
        "data_id": question.data_id,
        "arm": arm.name,
        "mode": arm.mode,
        "k": arm.k,
        "gold_position": arm.gold_position,
        "knowledge": ITEMS if arm.k else 0,
        "prediction": question.gold[0] if right else f"not {NASTY}" if i == 1 else f"I do not know, {arm.mode}",
        "fault": None,
        "score": float(right),
        "rank": rank,
        "item_ids": arm.items(retrieved, question.gold_items),
        "prompt_tokens": 70 + (260 * arm.k if arm.mode == "rag" else 0),
        "memory_vectors": 8 * arm.k if arm.mode == "memory" else 0,
        "completion_tokens": 4,
    }
