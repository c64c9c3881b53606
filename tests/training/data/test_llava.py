"""Conversion of LLaVA-style training JSON, up to samples that training reads."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.tiny import png
from typer.testing import CliRunner

from comem_ray.cli import app
from comem_ray.config import SourceConfig
from comem_ray.knowledge.sources.chunks import parse_batch, read_chunks
from comem_ray.knowledge.sources.files import source_files
from comem_ray.knowledge.sources.rows import Row
from comem_ray.training.data.llava import LlavaFiles, convert, read_records
from comem_ray.training.data.samples import REJECTED, TRAINING_SCHEMA, read_shards


def record(n: int, **changes) -> dict:
    turns = [{"from": "human", "value": f"<image>\nWhich number, {n}?"}, {"from": "gpt", "value": f"\\boxed{{{n}}}"}]
    items = [f"items/{n % 4}.png", f"items/{(n + 1) % 4}.png"]
    request = "<image>\n Similar image and text knowledge for reference"
    pairs = [({"from": "human", "value": request}, {"from": "gpt", "value": f"of {image}"}) for image in items]
    knowledge = [turn for pair in pairs for turn in pair]
    fields = {"id": str(n), "image": f"{n}.png", "conversations": turns}
    return {**fields, "knowledge_image": items, "knowledge_conversations": knowledge, **changes}


@pytest.fixture
def files(tmp_path) -> LlavaFiles:
    (tmp_path / "items").mkdir()
    for n in range(4):
        (tmp_path / "items" / f"{n}.png").write_bytes(png(n, 8, 8))
    for n in range(10):
        (tmp_path / f"{n}.png").write_bytes(png(n))
    return LlavaFiles(tmp_path / "train.json", tmp_path, tmp_path)


def converted(files: LlavaFiles, records: list, out: str = "out") -> tuple[dict[str, int], list[dict], list[dict]]:
    files.path.write_text(json.dumps(records, indent=1))
    counts = convert(files, files.path.parent / out)
    samples = [row for _, table in read_shards(files.path.parent / out) for row in table.to_pylist()]
    shards = sorted((files.path.parent / out).glob(f"*{REJECTED}"))
    rejected = [row for path in shards for row in pq.read_table(path).to_pylist()]
    assert (counts["records"], counts["kept"], counts["rejected"]) == (len(records), len(samples), len(rejected))
    return counts, samples, rejected


def test_records_become_samples_of_the_canonical_schema(files):
    counts, samples, _ = converted(files, [record(n) for n in range(10)])
    assert counts == {"records": 10, "kept": 10, "rejected": 0, "items": 4}
    assert pq.read_schema(files.path.parent / "out" / "part-000000.parquet").equals(TRAINING_SCHEMA)
    first = samples[3]
    assert (first["question"], first["answer"], first["language"]) == ("Which number, 3?", "\\boxed{3}", "en")
    assert json.loads(first["gold"]) == ["3"]
    assert json.loads(first["provenance"]) == {"converted_from": "llava", "data_id": "3", "source": "train.json"}
    assert first["image"].startswith(b"\x89PNG")


def test_the_items_are_a_source_of_ingest_with_the_ids_of_the_samples(files):
    _, samples, _ = converted(files, [record(n) for n in range(10)])
    out = files.path.parent / "out"
    (file,) = source_files([SourceConfig(path=str(out / "items.jsonl"), images=str(files.item_images))])
    rows = [row for chunk in read_chunks(file, 100) for _, row in parse_batch("jsonl", chunk.batch)]
    assert all(isinstance(row, Row) for row in rows)
    assert {row.item_id for row in rows} == {i for sample in samples for i in sample["item_ids"]}
    texts = {row.item_id: row.text for row in rows}
    assert [texts[i] for i in samples[3]["item_ids"]] == ["of items/3.png", "of items/0.png"]


def test_the_same_bytes_again(files):
    records = [record(n) for n in range(10)]
    folders = []
    for out in ("one", "two"):
        converted(files, records, out)
        folders.append({p.name: p.read_bytes() for p in (files.path.parent / out).iterdir()})
    assert folders[0] == folders[1]
    with pytest.raises(ValueError, match="one is there already and holds files"):
        convert(files, files.path.parent / "one")


HUMAN, GPT = {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": "none.png"}, "image_missing"),
        ({"image": "../secret.png"}, "image_missing"),
        ({"image": ["1.png", "2.png"]}, "several_images"),
        ({"image": 3}, "image_missing"),
        ({"image": "train.json"}, "image_unreadable"),
        ({"conversations": None}, "bad_field"),
        ({"conversations": [GPT, HUMAN]}, "bad_field"),
        ({"conversations": [HUMAN, {"from": "gpt"}]}, "bad_field"),
        ({"conversations": [HUMAN, GPT, HUMAN, GPT]}, "several_turns"),
        ({"conversations": [{"from": "human", "value": "<image><image>a"}, GPT]}, "several_images"),
        ({"conversations": [{"from": "human", "value": "<image>"}, GPT]}, "empty_question"),
        ({"conversations": [HUMAN, {"from": "gpt", "value": " "}]}, "empty_answer"),
        ({"knowledge_image": []}, "no_items"),
        ({"knowledge_image": ["none.png"]}, "no_items"),
        ({"knowledge_conversations": [HUMAN]}, "no_items"),
        ({"knowledge_conversations": 3}, "bad_field"),
        ({"id": "0"}, "duplicate"),
    ],
)
def test_a_bad_record_costs_itself(files, changes, reason):
    (files.path.parent.parent / "secret.png").write_bytes(png(1))
    counts, samples, rejected = converted(files, [record(0), record(1, **changes), record(2)])
    assert [json.loads(s["provenance"])["data_id"] for s in samples] == ["0", "2"]
    assert [(row["source_row"], row["reason"]) for row in rejected] == [(1, reason)]
    assert counts[f"rejected.{reason}"] == 1


def test_items_without_image_are_left_out_and_addresses_kept(files):
    images = ["none.png", "https://example.org/a.jpg"]
    _, (sample,), _ = converted(files, [record(1, knowledge_image=images, image=None)])
    assert sample["image"] is None
    (line,) = (files.path.parent / "out" / "items.jsonl").read_text().splitlines()
    assert json.loads(line) == {"item_id": sample["item_ids"][0], "image_url": images[1], "text": "of items/2.png"}


def test_records_are_read_one_at_a_time_from_a_list_or_from_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("comem_ray.training.data.llava._PIECE", 7)
    path, records = tmp_path / "a.json", [{"a": [1, [2], "x]y"]}, {"b": "ü" * 40}, 12345, {"c": {}}]
    for text in (json.dumps(records, indent=2), "\n".join(map(json.dumps, records)), json.dumps(records) + "\n"):
        path.write_text(text)
        assert list(read_records(path)) == records
    for text in ("", "[]", " [ ] "):
        path.write_text(text)
        assert list(read_records(path)) == []


@pytest.mark.parametrize("cut", [1, 5, 200])
def test_a_cut_file_is_a_rejected_row_behind_those_before_it(files, cut):
    whole = json.dumps([record(n) for n in range(3)])
    files.path.write_text(whole[:-cut])
    counts = convert(files, files.path.parent / "out")
    assert (counts["kept"], counts["rejected.bad_json"]) == (3 if cut == 1 else 2, 1)


def test_bytes_that_are_not_utf8_cost_their_record(files):
    text = json.dumps([record(0), record(1)]).encode().replace(b"Which number, 1", b"Which \xff, 1")
    files.path.write_bytes(text)
    counts = convert(files, files.path.parent / "out")
    assert (counts["kept"], counts["rejected.bad_utf8"]) == (1, 1)


def test_the_command(files, tmp_path: Path):
    files.path.write_text(json.dumps([record(0)]))
    words = ["convert-training-data", str(files.path), "--images", str(tmp_path), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, json.loads(done.stdout)["kept"]) == (0, 1)
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    done = CliRunner().invoke(app, ["convert-training-data", "none.json", *words[2:4], "--out", str(tmp_path / "b")])
    assert "there is no file none.json" in done.stderr
