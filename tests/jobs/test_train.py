"""jobs.train on a real local Ray: the same weights whatever was killed, figures of every step, and a usable adapter."""

import json
import re
import shutil
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from support.tiny import image, item_row, write_items
from support.tiny_training import write_samples
from transformers import AutoModelForImageTextToText

from comem_ray.config import load_config, resolve
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.training.metrics import read_metrics

STEPS = 12


@pytest.fixture(scope="module")
def run_file(make_config, tmp_path_factory):
    """A function (name, training fields) -> configuration file of a run of its own, over the same samples."""
    home = tmp_path_factory.mktemp("home")

    def make(name: str, **training) -> Path:
        fields = {"data": str(home / "data"), "epochs": 5, "global_batch": 4, "micro_batch": 2, "items": 2}
        fields |= {"learning_rate": 1e-3, "checkpoint_every": 3, "max_steps": STEPS, **training}
        fields["validation"] = {"data": str(home / "data"), "every": 6, "questions": 3}
        adapter = {"path": str(home / name / "adapter")}
        config = make_config(root=str(home / name), training=fields, adapter=adapter, seed=3)
        ids = write_items(config.folder("items"), [8])
        if not (home / "data").exists():
            write_samples(home / "data", ids)
            write_unusable(home / "data")
        path = home / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        return path

    return make


def write_unusable(folder: Path) -> None:
    """A shard of samples that no step may meet: an image that is cut short, a null answer, no items."""
    row = pq.read_table(folder / "part-000000.parquet").slice(1, 1).to_pylist()[0]
    rows = [{**row, "image": row["image"][:200]}, {**row, "answer": None}, {**row, "item_ids": []}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "part-000001.parquet")


def adapter_weights(path: Path) -> dict[str, torch.Tensor]:
    folder = resolve(load_config(path).adapter.path)
    return {f"{f.parent.name}/{n}": t for f in sorted(folder.rglob("*.safetensors")) for n, t in load_file(f).items()}


def assert_same_weights(path: Path, other: Path) -> None:
    weights, others = adapter_weights(path), adapter_weights(other)
    assert weights.keys() == others.keys()
    assert [n for n in weights if not torch.equal(weights[n], others[n])] == []


@pytest.fixture(scope="module")
def uninterrupted(run_file, start_job):
    path = run_file("uninterrupted")
    return path, start_job("jobs.train", path).finish()


def test_figures_of_every_step_and_a_report(uninterrupted):
    path, output = uninterrupted
    folder = load_config(path).folder("training")
    rows = read_metrics(folder)
    steps = [r for r in rows if "loss" in r]
    assert [r["step"] for r in steps] == list(range(1, STEPS + 1))
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert all(r["samples_per_s"] > 0 and r["tokens_per_s"] > 0 and r["tflops"] > 0 for r in steps)
    checks = [r for r in rows if "validation" in r]
    assert [r["step"] for r in checks] == [6, 12]
    assert set(checks[0]["validation"]) == {"none", "rag", "memory", "n"}
    assert "<svg" in (folder / "report.html").read_text(encoding="utf-8")
    assert list((folder / "tensorboard").glob("events.out.tfevents*"))
    assert re.search(rf"^ +steps +{STEPS}$", output, re.MULTILINE)
    assert re.search(r"^ +skipped +3$", output, re.MULTILINE)
    unusable = json.loads((folder / "unusable_samples.json").read_text())["unusable"]
    assert [sample["reason"] for sample in unusable] == ["image_truncated", "null_field", "no_items"]
    progress = [line for line in output.splitlines() if line.startswith("train: ")]
    assert progress[0] == "train: started"
    assert progress[-1].startswith(f"train: {STEPS} of {STEPS} steps, ")
    assert len(progress) <= 1 + 4
    assert "INFO" not in output
    assert not list(resolve(load_config(path).root).rglob("*.p*kl*"))


def test_the_adapter_is_a_plain_peft_folder_and_encodes(uninterrupted):
    config = load_config(uninterrupted[0])
    folder = resolve(config.adapter.path)
    stock = AutoModelForImageTextToText.from_pretrained(config.backbone.model, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(stock, str(folder / "lora"))
    kept = load_file(folder / "lora" / "adapter_model.safetensors")
    assert kept
    assert all(".lora_" in name for name in kept)
    assert any(p.abs().sum() > 0 for n, p in loaded.named_parameters() if ".lora_B." in n)
    row = item_row(1)
    item = [(str(row["text"]), image(1, int(row["width"])))]
    trained = MemoryEncoder(config).encode(item)
    untrained = MemoryEncoder(load_config(uninterrupted[0], ["adapter.path=null"])).encode(item)
    assert not torch.allclose(trained.float(), untrained.float(), atol=1e-2)


def test_killed_then_rerun_ends_with_the_same_weights(uninterrupted, run_file, start_job):
    path = run_file("killed")
    folder = load_config(path).folder("training")
    job = start_job("jobs.train", path)
    job.wait_for(lambda: len(read_metrics(folder)) >= 4)
    job.kill_worker("TrainWorker")  # the job goes on with another worker
    job.wait_for(lambda: len(read_metrics(folder)) <= 3)
    job.wait_for(lambda: len(read_metrics(folder)) >= 8)
    job.kill()
    assert not resolve(load_config(path).adapter.path).exists()
    start_job("jobs.train", path).finish()
    assert_same_weights(path, uninterrupted[0])
    assert [r["step"] for r in read_metrics(folder) if "loss" in r] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_refusal_of_a_worker_is_one_message_and_exit_code_3(uninterrupted, run_file, start_job, workers):
    # That an adapter is of another backbone is seen where the model is loaded: by a worker.
    start = uninterrupted[0].with_name(f"start-{workers}")
    shutil.copytree(resolve(load_config(uninterrupted[0]).adapter.path), start)
    about = json.loads((start / "adapter.json").read_text())
    (start / "adapter.json").write_text(json.dumps({**about, "backbone": "0" * 64}))
    path = run_file(f"refused-{workers}", workers={"count": workers, "cpus": 0.5}, start=str(start))
    output = start_job("jobs.train", path).finish(3)
    assert output.splitlines()[-1].startswith(f"artifact: {start} was trained on backbone 000000000000")
    assert "Traceback" not in output


@pytest.mark.slow
def test_two_workers_compute_the_same_steps(uninterrupted, run_file, start_job):
    path = run_file("two", workers={"count": 2, "cpus": 0.5}, max_steps=3)
    start_job("jobs.train", path).finish()
    one, two = (
        [r for r in read_metrics(load_config(p).folder("training")) if "loss" in r] for p in (uninterrupted[0], path)
    )
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-3)  # dropout differs with the worker
    assert two[0]["gradient_norm"] == pytest.approx(one[0]["gradient_norm"], rel=0.2)


@pytest.mark.slow
def test_a_finished_run_takes_no_step(uninterrupted, start_job):
    assert f"kept     {STEPS}" in start_job("jobs.train", uninterrupted[0]).finish()


@pytest.mark.slow
def test_divergence_is_one_message_and_no_second_try(run_file, start_job):
    path = run_file("diverging", max_loss=0.001)
    start = time.monotonic()
    output = start_job("jobs.train", path).finish(1)
    assert "step 1: the loss is" in output
    assert "Traceback" not in output
    assert time.monotonic() - start < 120
