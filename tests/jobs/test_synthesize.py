"""jobs.synthesize on a real local Ray: right answers are kept, a row has one outcome, and kill -9 changes no byte."""

from __future__ import annotations

import json
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file, save_file
from support.tiny import image, png, stage_bytes
from support.tiny_clip import write_clip
from support.tiny_run import write_run
from support.translating import translating
from tokenizers import Tokenizer

from comem_ray.artifacts import ArtifactError, load_manifest
from comem_ray.config import Config, ConfigError, load_config
from comem_ray.knowledge.images import open_image
from comem_ray.knowledge.items import ItemStore
from comem_ray.retrieval.retriever import Query, Retriever
from comem_ray.tasks.example import Example
from comem_ray.training.data.counts import COUNTED
from comem_ray.training.data.questions import RejectedSample, read_questions
from comem_ray.training.data.samples import SampleSet
from comem_ray.training.data.synthesis import Synthesizer
from jobs.synthesize import run

QUESTIONS, UNIT = 36, 4


def questions(folder: Path) -> list[dict[str, Any]]:
    """36 questions with images, no right answers yet; number 5 has no image file, 6 a broken one, 7 none."""
    rows = []
    for i in range(QUESTIONS):
        (folder / f"{i}.png").write_bytes(png(1000 + i, 64, 48))
        rows.append({"data_id": f"q{i}", "question": f"What is {i}?", "image": f"{i}.png", "answers": ["unknown"]})
    (folder / "5.png").unlink()
    (folder / "6.png").write_bytes(png(6)[:300])
    rows[7]["image"] = None
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(["{broken", *map(json.dumps, [*rows, rows[0]])]))


@pytest.fixture(scope="module")
def backbone(backbones, tmp_path_factory) -> Path:
    """The tiny backbone, inclined to end its turn: some answers end, some are cut short, some are empty."""
    folder = tmp_path_factory.mktemp("stopping") / "backbone"
    shutil.copytree(backbones["qwen2_5_vl"], folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<|im_end|>")] *= 4
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def endpoint():
    with translating() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def world(make_config, backbone, endpoint, tmp_path_factory) -> tuple[Config, dict[str, str]]:
    """A configuration over 40 items, and what the backbone answers to each question that comes to an end."""
    home = tmp_path_factory.mktemp("synthesis")
    rows = questions(home)
    write(home / "questions.jsonl", rows)
    synthesis = {
        "sources": [{"task": "jsonl", "path": str(home / "questions.jsonl")}],
        "answer_format": "plain",
        "answer_with_items": 2,
        "max_new_tokens": 6,
        "batch": 3,
        "questions_per_unit": UNIT,
        "workers": {"count": 1, "cpus": 0.5},
        "translation": {
            "endpoint": endpoint.url,
            "model": "small",
            "languages": ["fr", "bg"],
            "samples_per_language": 3,
            "workers": {"cpus": 0.5},
        },
    }
    backbone_section = {"model": str(backbone)}
    clip, _ = write_clip(home)
    config = make_config(root=str(home / "run"), clip=clip, synthesis=synthesis, backbone=backbone_section)
    write_run(config, [25, 15])
    answers = answered(config)
    for i, row in enumerate(rows):
        if i % 2 and row["data_id"] in answers:
            row["answers"] = ["something else", answers[row["data_id"]].upper()]
    write(home / "questions.jsonl", rows)
    return config, answers


def answered(config: Config) -> dict[str, str]:
    """What the library, run directly in the units of the job, has the backbone answer: data_id -> answer."""
    assert config.synthesis is not None
    synthesizer = Synthesizer(config, config.synthesis)
    rows = list(read_questions(config.synthesis.sources[0]))
    answers = {}
    for start in range(0, len(rows), UNIT):
        examples = [row for row in rows[start : start + UNIT] if isinstance(row, Example)]
        for outcome in synthesizer.outcomes(examples):
            assert isinstance(outcome, RejectedSample)
            if outcome.reason == "wrong_answer" and outcome.answer and outcome.data_id:
                answers[outcome.data_id] = outcome.answer
    return answers


def run_file(world, name: str) -> Path:
    """The configuration of a run of its own over the same items and index."""
    root = Path(world[0].root)
    other = root.with_name(name)
    other.mkdir()
    for stage in ("items", "index"):
        (other / stage).symlink_to(root / stage)
    path = root.with_name(f"{name}.yaml")
    path.write_text(yaml.safe_dump({**world[0].model_dump(mode="json"), "root": str(other)}))
    return path


def rows_of(folder: Path, pattern: str) -> list[dict[str, Any]]:
    """The rows of the shards whose logical name has this pattern."""
    shards = load_manifest(folder, "synthesize").shards()
    names = sorted((s.logical_name, s.name) for s in shards if fnmatch(s.logical_name, pattern))
    return [row for _, name in names for row in pq.read_table(folder / name).to_pylist()]


@pytest.fixture(scope="module")
def uninterrupted(world, start_job):
    path = run_file(world, "uninterrupted")
    return path, start_job("jobs.synthesize", path).finish()


def test_right_answers_are_kept(world, uninterrupted):
    config, answers = world
    folder = load_config(uninterrupted[0]).folder("training-data")
    kept = rows_of(folder, "part-??????.parquet")
    wanted = [f"q{i}" for i in range(QUESTIONS) if i % 2 and f"q{i}" in answers]
    assert len(wanted) >= 3
    assert [json.loads(row["provenance"])["data_id"] for row in kept] == wanted
    retriever = Retriever(config)
    for row in kept:
        provenance = json.loads(row["provenance"])
        assert row["answer"] == answers[provenance["data_id"]]
        assert set(provenance) == {"source", "data_id", "score", "backbone"}
        assert (provenance["source"], provenance["score"], len(provenance["backbone"])) == ("jsonl", 1.0, 64)
        assert (row["rule"], json.loads(row["gold"])) == ("exact", ["something else", row["answer"].upper()])
        number = int(provenance["data_id"][1:])
        assert row["question"] == f"What is {number}?"
        question_image = open_image(row["image"], 10_000)
        assert question_image.tobytes() == image(1000 + number, 64, 48).tobytes()
        (hits,) = retriever.retrieve([Query(question_image, None)], 3)
        assert row["item_ids"] == [hit.item_id for hit in hits]


def test_every_row_has_one_outcome(world, uninterrupted):
    path, output = uninterrupted
    config = load_config(path)
    folder = config.folder("training-data")
    rejected = {row["source_row"]: row for row in rows_of(folder, "*.rejected.parquet")}
    reasons = {number: row["reason"] for number, row in rejected.items()}
    # Row 0 is the broken line; question i stands in row i + 1.
    assert {n: reasons[n] for n in (0, 6, 7, 8)} == {
        0: "bad_json",
        6: "image_missing",
        7: "image_truncated",
        8: "no_image",
    }
    assert set(reasons.values()) > {"wrong_answer", "cut_short"}
    wrong = next(row for row in rejected.values() if row["reason"] == "wrong_answer")
    assert wrong["answer"] == world[1][wrong["data_id"]]
    counts = load_manifest(folder, "synthesize").counts
    kept = len(rows_of(folder, "part-??????.parquet"))
    assert counts["questions"] == QUESTIONS + 2 == counts["kept"] + counts["rejected"] + counts["duplicates"]
    assert (counts["kept"], counts["rejected"], counts["duplicates"]) == (kept, len(rejected), 1)
    assert json.loads((config.folder("summaries") / "synthesize.json").read_text())["kept"] == kept
    assert re.search(rf"^ +questions +{QUESTIONS + 2}$", output, re.MULTILINE)
    assert re.search(r"^ +rejected\.image_missing +1$", output, re.MULTILINE)


def test_counts_of_each_source_seed_and_decoding_are_printed_and_saved(uninterrupted):
    path, output = uninterrupted
    config = load_config(path)
    folder = config.folder("training-data")
    manifest = load_manifest(folder, "synthesize")
    rejected = rows_of(folder, "*.rejected.parquet")
    kept = len(rows_of(folder, "part-??????.parquet"))
    ended = sum(row["reason"] in ("wrong_answer", "scoring_failed") for row in rejected)
    unasked = sum(row["answer"] is None for row in rejected) + 1  # and the duplicate
    counts = manifest.extra["sources"]
    assert counts == {
        "jsonl": {
            "questions": QUESTIONS + 2,
            "asked": QUESTIONS + 2 - unasked,
            "answered": kept + ended,
            "right": kept,
            "kept": kept,
        }
    }
    assert manifest.extra["sampling"]["seed"] == config.seed
    assert manifest.extra["sampling"]["items in the prompt"] == 2
    summary = json.loads((config.folder("summaries") / "synthesize.json").read_text())
    assert summary["source jsonl"] == ", ".join(f"{counts['jsonl'][name]} {name}" for name in COUNTED)
    assert re.search(rf"^ +source jsonl +{QUESTIONS + 2} questions, .*, {kept} kept$", output, re.MULTILINE)
    assert "seed 0" in summary["sampling"]


def test_translations_and_the_sample_set(uninterrupted):
    config = load_config(uninterrupted[0])
    folder = config.folder("training-data")
    kept = {row["sample_id"]: row for row in rows_of(folder, "part-??????.parquet")}
    french = rows_of(folder, "translated-fr.parquet")
    assert len(french) == 3
    for row in french:
        original = kept[json.loads(row["provenance"])["translated_from"]]
        assert row["answer"] == f"<French> {original['answer']}".strip()
        assert row["language"] == "fr"
        assert row["item_ids"] == original["item_ids"]
    samples = SampleSet(folder, ItemStore(config.folder("items")), 3, 10_000)
    assert len(samples) == len(kept) + 6
    assert len({samples.get(i).sample_id for i in range(len(samples))}) == len(samples)
    assert len(samples.get(0).items) == 3


def test_killed_twice_then_rerun_equals_uninterrupted(world, uninterrupted, start_job):
    path = run_file(world, "killed")
    folder = load_config(path).folder("training-data")
    records = folder / "records"
    job = start_job("jobs.synthesize", path)
    job.wait_for(lambda: len(list(records.glob("*.json"))) >= 1)
    job.kill()
    assert not (folder / "manifest.json").exists()
    left = {p.name: p.stat().st_mtime_ns for p in records.glob("*.json")}
    job = start_job("jobs.synthesize", path)
    job.kill_worker("SynthesizeUnit)).submit")
    job.finish()
    assert stage_bytes(folder) == stage_bytes(load_config(uninterrupted[0]).folder("training-data"))
    assert {name: (records / name).stat().st_mtime_ns for name in left} == left  # nothing twice


def test_what_cannot_be_run_is_refused(uninterrupted):
    path = uninterrupted[0]
    with pytest.raises(ArtifactError, match="started with another configuration"):
        run(load_config(path, ["synthesis.top_k=4"]))
    with pytest.raises(ConfigError, match="there is no file"):
        run(load_config(path, ["synthesis.sources.0.path=gone.jsonl"]))
    with pytest.raises(ConfigError, match="TRANSLATION_KEY is not set"):
        run(load_config(path, ["synthesis.translation.key_variable=TRANSLATION_KEY"]))
    with pytest.raises(ConfigError, match="field synthesis: is missing"):
        run(load_config(path, ["synthesis=null"]))
    with pytest.raises(ConfigError, match=r"answer_with_items \(9\) must not exceed top_k \(3\)"):
        load_config(path, ["synthesis.answer_with_items=9"])
