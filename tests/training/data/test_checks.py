"""Samples that cannot be used are named with their reason, and no sample of a shard can stop a run."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tiny import png, write_items

from comem_ray.artifacts import ArtifactError
from comem_ray.knowledge.items import ItemStore
from comem_ray.training.data.checks import SampleCheck
from comem_ray.training.data.samples import TRAINING_SCHEMA, SampleSet, read_shards, stored_samples
from comem_ray.training.loop import Trainer
from comem_ray.training.runs import check_run, unusable_path, unusable_samples

NULLABLE = pa.schema([pa.field(field.name, field.type) for field in TRAINING_SCHEMA])
# A change of a sound row, and the reason why it cannot be used.
CHANGES = {
    "image_truncated": {"image": png(1, 300, 200)[:2_000]},
    "image_unreadable": {"image": b"<html>"},
    "image_empty": {"image": b""},
    "prompt_too_long": {"question": "long " * 3_000},
    "sample_too_long": {"answer": "long " * 3_000},
    "bad_provenance": {"provenance": ""},
    "null_field": {"answer": None},
    "bad_gold": {"gold": "[Ann"},
    "empty_answer": {"answer": " "},
    "empty_question": {"question": ""},
    "no_items": {"item_ids": []},
    "unknown_item": {"item_ids": ["gone"]},
}


def sound(items: list[str], **changed) -> dict:
    return {
        "sample_id": "a",
        "question": "Who?",
        "image": png(1),
        "item_ids": items[:3],
        "answer": "It is Ann.",
        "language": "en",
        "rule": "exact",
        "gold": '["Ann"]',
        "provenance": "{}",
        **changed,
    }


def write(folder: Path, name: str, rows: list[dict], schema: pa.Schema = NULLABLE) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / name)
    return folder


@pytest.fixture
def world(make_config, tmp_path):
    """A configuration and the ids of its eight items."""
    training = {"data": str(tmp_path / "data"), "global_batch": 2, "micro_batch": 1, "learning_rate": 1e-3}
    reasoner = {"max_prompt_tokens": 2_048, "max_new_tokens": 8}
    config = make_config(root=str(tmp_path / "run"), training=training, reasoner=reasoner)
    return config, write_items(config.folder("items"), [8])


def check(config, own_rules=None):
    return SampleCheck(config, ItemStore(config.folder("items")), own_rules)


def test_every_reason(world, tmp_path):
    config, items = world
    write(tmp_path / "data", "part-0.parquet", [sound(items), sound(items, image=None)])
    write(tmp_path / "data", "part-1.parquet", [sound(items, **changed) for changed in CHANGES.values()])
    unusable = check(config).unusable(tmp_path / "data")
    assert [sample.reason for sample in unusable] == list(CHANGES)
    assert [(sample.position, sample.shard, sample.row) for sample in unusable][:2] == [
        (2, "part-1.parquet", 0),
        (3, "part-1.parquet", 1),
    ]
    assert all(sample.detail for sample in unusable)


def test_a_text_that_is_not_utf8(world, tmp_path):
    config, items = world
    table = pa.Table.from_pylist([sound(items), sound(items)], NULLABLE)
    broken = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"ok\xff\xfe"))
    (tmp_path / "data").mkdir()
    pq.write_table(table.set_column(1, "question", broken), tmp_path / "data" / "part.parquet")
    (sample,) = check(config).unusable(tmp_path / "data")
    assert (sample.row, sample.reason) == (1, "null_field")


def test_a_validation_wants_rules_but_no_items(world, tmp_path):
    config, items = world
    rows = [sound(items, item_ids=[]), sound(items, rule="vqa", gold='"Ann"'), sound(items, rule="mine")]
    write(tmp_path / "data", "part.parquet", rows)

    def mine(prediction, gold):
        raise KeyError("x")

    unusable = check(config, {"mine": mine}).unusable(tmp_path / "data")
    assert [(sample.row, sample.reason) for sample in unusable] == [(1, "bad_rule"), (2, "bad_rule")]


def test_a_teacher_that_reads_the_items_needs_room_for_them(world, tmp_path):
    config, items = world
    rows = [sound(items, question="long " * 380)]
    write(tmp_path / "data", "part.parquet", rows)
    assert check(config).unusable(tmp_path / "data") == []
    training = config.training.model_copy(update={"distillation": 1.0})
    (sample,) = check(config.model_copy(update={"training": training})).unusable(tmp_path / "data")
    assert sample.reason == "prompt_too_long"
    assert "in mode rag" in sample.detail


def test_no_sample_stops_a_run(world, tmp_path):
    config, items = world
    rows = [sound(items, sample_id="sound", question="Which?")]
    rows += [sound(items, **changed) for changed in CHANGES.values()]
    write(tmp_path / "data", "part.parquet", [*rows, sound(items, sample_id="other")])
    trainer = Trainer(config)
    assert len(trainer.samples) == 2
    assert len(list(trainer.run())) == 1
    listed = json.loads(unusable_path(config).read_text())
    assert listed["count"] == len(CHANGES) == len(listed["unusable"])
    assert {sample["reason"] for sample in listed["unusable"]} == set(CHANGES)
    assert listed["unusable"][0].keys() >= {"shard", "row", "sample_id", "reason", "detail"}
    check_run(config)  # the run goes on: what is left out is no change


def test_they_are_checked_once_while_nothing_changes(world, tmp_path):
    config, items = world
    write(tmp_path / "data", "part.parquet", [sound(items), sound(items, answer=None)])
    first = unusable_samples(config)
    written = unusable_path(config).stat().st_mtime_ns
    assert unusable_samples(config) == first
    assert unusable_path(config).stat().st_mtime_ns == written
    write(tmp_path / "data", "part.parquet", [sound(items)] * 3)
    assert unusable_samples(config) == []
    unusable_path(config).write_text("[")
    assert unusable_samples(config) == []


def test_a_run_may_refuse_them(world, tmp_path):
    config, items = world
    write(tmp_path / "data", "part.parquet", [sound(items), sound(items, **CHANGES["image_truncated"])])
    refusing = config.training.model_copy(update={"unusable_samples": "refuse"})
    with pytest.raises(ArtifactError, match=r"1 samples .* row 2 of part\.parquet \(image_truncated: .*leave_out"):
        check_run(config.model_copy(update={"training": refusing}))
    write(tmp_path / "data", "part.parquet", [sound(items, answer=None)])
    with pytest.raises(ArtifactError, match="holds 1 samples, none of them usable"):
        check_run(config)


def test_a_shard_that_cannot_be_read_is_one_sentence(world, tmp_path):
    _, items = world
    folder = write(tmp_path / "data", "part.parquet", [sound(items)] * 20)
    whole = (folder / "part.parquet").read_bytes()
    (folder / "part.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=r"part\.parquet is not a whole parquet file .*jobs\.synthesize"):
        list(read_shards(folder))
    with pytest.raises(ArtifactError, match=r"part\.parquet is not a whole parquet file"):
        stored_samples(folder)
    (folder / "part.parquet").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"part\.parquet is not a whole parquet file"):
        list(read_shards(folder))
    rows = [{name: value for name, value in sound(items).items() if name != "answer"}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "part.parquet")
    with pytest.raises(ArtifactError, match=r"part\.parquet has no column answer"):
        list(read_shards(folder))
    pq.write_table(pa.Table.from_pylist([sound(items, item_ids="a, b")]), folder / "part.parquet")
    with pytest.raises(ArtifactError, match=r"column item_ids holds string, wanted list"):
        list(read_shards(folder))
    write(folder, "part.parquet", [sound(items, answer=None)])
    with pytest.raises(ArtifactError, match="has samples without answer"):
        SampleSet(folder, ItemStore(tmp_path / "run" / "items"), 3, 10_000)
