"""jobs.evaluate on a real local Ray: every arm asked, scored as the library scores, the same after kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from tiny import png
from tiny_clip import write_clip
from tiny_run import work, write_run

from comem_ray.artifacts import StageFolder
from comem_ray.config import Config, ConfigError
from comem_ray.evaluation.answering import Evaluator
from comem_ray.evaluation.questions import EvaluationQuestion, write_questions
from comem_ray.model.checkpoint import encoder_fingerprint
from jobs.encode_memory import STAGE, EncodeShard
from jobs.evaluate import section

REPOSITORY = Path(__file__).resolve().parents[2]
COUNT = 9
ARMS = 1 + 2 * 2 + 2 * 2


@pytest.fixture(scope="module")
def world(make_config, tmp_path_factory) -> Config:
    """Nine questions over 14 items; the gold of every second one is what the backbone says in mode memory."""
    home = tmp_path_factory.mktemp("evaluation")
    evaluation = {"questions": str(home / "questions.parquet"), "k": [1, 2], "places": [1, 2], "batch": 4, "timed": 2}
    evaluation |= {"questions_per_unit": 3, "workers": {"cpus": 0.5}}
    clip, _ = write_clip(home)
    reasoner = {"max_new_tokens": 5}
    config = make_config(root=str(home / "run"), clip=clip, evaluation=evaluation, reasoner=reasoner)
    ids = write_run(config, [9, 5])
    memory = StageFolder(config.folder("memory"), STAGE, {"encoder": encoder_fingerprint(config)})
    units = ["part-0000-000000", "part-0000-000001"]
    work(memory, EncodeShard(config, memory), units)
    memory.close(units)
    asked = [question(i, ids[i], ["nothing"]) for i in range(COUNT)]
    said = {r["data_id"]: r["prediction"] for r in in_units(config, asked) if r["arm"] == "memory, k=1"}
    gold = [question(i, ids[i], [said[f"q{i}"]] if i % 2 else ["nothing"]) for i in range(COUNT)]
    write_questions(home / "questions.parquet", gold)
    return config


def question(i: int, item_id: str, gold: list[str]) -> EvaluationQuestion:
    return EvaluationQuestion(f"q{i}", f"What is {i}?", png(i), "exact", gold, "en", [item_id], {"parity": str(i % 2)})


def in_units(config: Config, questions: list[EvaluationQuestion]) -> list[dict]:
    torch.set_num_threads(1)
    evaluator = Evaluator(config, config.evaluation)
    return [r for s in range(0, COUNT, 3) for r in evaluator.predictions(questions[s : s + 3])]


def start(config: Config, name: str) -> tuple[subprocess.Popen, Path]:
    """The job, over a folder of its own beside the run's stages."""
    root = Path(config.root).parent / name
    root.mkdir(exist_ok=True)
    for stage in ("items", "index", "memory"):
        if not (root / stage).exists():
            (root / stage).symlink_to(Path(config.root) / stage)
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump({**config.model_dump(mode="json"), "root": str(root)}))
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "jobs.evaluate", "--config", str(path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=REPOSITORY, env=env, start_new_session=True, **pipes), root / "evaluation"


def finish(job: subprocess.Popen) -> str:
    output = job.communicate(timeout=300)[0].decode()
    assert job.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def uninterrupted(world):
    job, folder = start(world, "whole")
    return folder, finish(job)


def predictions(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("part-*.parquet"))}


def test_every_arm_is_asked_and_scored(world, uninterrupted):
    folder, output = uninterrupted
    rows = [r for p in sorted(folder.glob("part-*.parquet")) for r in pq.read_table(p).to_pylist()]
    assert len(rows) == COUNT * ARMS
    report = json.loads((folder / "report.json").read_text())
    assert report["questions"] == COUNT
    assert len(report["arms"]) == ARMS
    memory = report["arms"]["memory, k=1"]
    assert memory["groups"]["parity"]["1"] == {"score": 100.0, "low": 51.01, "high": 100.0, "n": 4}
    assert (memory["memory_vectors"], report["arms"]["rag, k=1"]["memory_vectors"]) == (8, 0)
    assert report["arms"]["rag, k=2"]["prompt_tokens"] > report["arms"]["rag, k=1"]["prompt_tokens"] + 20
    assert memory["first_token_ms"] > 0
    assert report["recall"]["@1"]["n"] == COUNT
    for row in rows:
        if row["place"] is not None:
            assert (
                row["item_ids"][row["place"] - 1]
                == pq.read_table(world.evaluation.questions).to_pylist()[int(row["data_id"][1:])]["gold_items"][0]
            )
    assert "memory, k=1, %" in output
    lines = (folder.parent / "predictions" / "memory-k-1.jsonl").read_text().splitlines()
    wanted = [{"data_id": r["data_id"], "prediction": r["prediction"]} for r in rows if r["arm"] == "memory, k=1"]
    assert [json.loads(line) for line in lines] == wanted
    assert "| memory, k=1 |" in (folder / "report.md").read_text()


def test_killed_then_rerun_equals_uninterrupted(world, uninterrupted):
    job, folder = start(world, "killed")
    end = time.monotonic() + 120
    while not list((folder / "records").glob("*.json")):
        assert job.poll() is None, job.communicate()[0].decode()
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    assert not (folder / "report.json").exists()
    job, _ = start(world, "killed")
    finish(job)
    assert predictions(folder) == predictions(uninterrupted[0])


def test_what_is_missing_is_named(world):
    with pytest.raises(ConfigError, match="field evaluation"):
        section(world.model_copy(update={"evaluation": None}))
