"""Predictions on disk: the rows of a finished stage, and the files that `comem score` reads."""

import json

import pyarrow as pa
import pytest

from comem_ray.artifacts import StageFolder, write_parquet
from comem_ray.evaluation.predictions import (
    PREDICTION_SCHEMA,
    STAGE,
    TIMES,
    TIMES_SCHEMA,
    file_stem,
    read_predictions,
    read_times,
    write_faults,
    write_prediction_files,
)
from comem_ray.tasks.example import Example


def row(data_id, arm="memory, k=1", prediction="yes", fault=None):
    counts = {"prompt_tokens": 5, "memory_vectors": 8, "completion_tokens": 1}
    fields = {"mode": arm.split(",")[0], "k": 1, "gold_position": None, "knowledge": 14, "rank": 1, "item_ids": ["i"]}
    answer = {"prediction": prediction, "fault": fault, "fault_detail": None, "score": 1.0}
    return {"data_id": data_id, "arm": arm, **answer, **fields, **counts}


@pytest.fixture
def stage(tmp_path):
    """Units in another order than their names."""
    folder = StageFolder(tmp_path / "evaluation", STAGE, {})
    times = [{"data_id": "a", "arm": "none", "first_token_ms": 1.0, "answer_ms": 2.0}]
    tables = {
        TIMES: pa.Table.from_pylist(times, TIMES_SCHEMA),
        "part-000001": pa.Table.from_pylist([row("c")], PREDICTION_SCHEMA),
        "part-000000": pa.Table.from_pylist([row("a"), row("b")], PREDICTION_SCHEMA),
    }
    for unit, table in tables.items():
        write_parquet(folder.path / f"{unit}.parquet", table)
        folder.commit(unit, "", {f"{unit}.parquet": len(table)}, {})
    return folder, folder.close(tables), times


def test_predictions_and_times_of_a_stage_are_read_apart(stage):
    folder, manifest, times = stage
    assert read_predictions(folder.path, manifest) == [row("a"), row("b"), row("c")]
    assert read_times(folder.path, manifest) == times


def test_a_file_per_source_and_arm_that_comem_score_reads(tmp_path):
    def question(data_id, own_id, source):
        return Example(data_id, "?", None, "exact", ["x"], source=source, own_id=own_id)

    questions = [question("okvqa/70", 70, "okvqa"), question("okvqa/71", 71, "okvqa"), question("q0", "q0", "")]
    rows = [row(q.data_id, prediction=f"täst {q.own_id}") for q in questions]
    rows += [row("okvqa/70", arm="none", prediction="", fault="image_missing")]
    write_prediction_files(tmp_path, questions, rows)
    files = {str(p.relative_to(tmp_path)): p.read_text(encoding="utf-8") for p in tmp_path.rglob("*.jsonl")}
    assert files.keys() == {"okvqa/memory-k-1.jsonl", "okvqa/none.jsonl", "memory-k-1.jsonl"}
    assert [json.loads(line) for line in files["okvqa/memory-k-1.jsonl"].splitlines()] == [
        {"data_id": 70, "prediction": "täst 70"},
        {"data_id": 71, "prediction": "täst 71"},
    ]
    assert files["okvqa/none.jsonl"] == ""  # a question that was not asked has no line


def test_an_arm_as_a_file_name():
    assert file_stem("rag, k=3, 1000 items, right item at 2") == "rag-k-3-1000-items-right-item-at-2"


def test_the_questions_without_an_answer_are_listed(tmp_path):
    rows = [row("a"), row("b") | {"fault": "prompt_too_long", "fault_detail": "9 tokens"}]
    rows += [{**rows[1], "arm": "rag, k=1"}, row("c") | {"fault": "answer_failed"}]
    assert write_faults(tmp_path / "faults.jsonl", rows) == {"answer_failed": 1, "prompt_too_long": 1}
    lines = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert [line["data_id"] for line in lines] == ["b", "b", "c"]
    assert lines[0] == {"data_id": "b", "arm": "memory, k=1", "fault": "prompt_too_long", "detail": "9 tokens"}
