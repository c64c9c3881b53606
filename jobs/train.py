"""Trains the memory encoder's adapter (LoRA and Q-Former) through the frozen backbone, on Ray Train.

    ray job submit --working-dir . -- python -m jobs.train --config configs/qwen2_5_vl_7b.yaml [--dry-run]

Every worker holds one backbone and computes its share of each step's samples. A worker that dies is started again from
the last checkpoint; so is the whole run by the same command. It ends with the same weights either way. Figures of every
step go to the log, to training/metrics.jsonl and to TensorBoard files; curves to training/report.html. The finished
adapter is copied to adapter.path. `--dry-run` prints what the run would take, and runs nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import ray.train
import torch
import yaml
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import Tensor

from comem_ray.config import Config, resolve
from comem_ray.report.training import write_report
from comem_ray.training.estimate import estimate
from comem_ray.training.loop import Diverged, Trainer
from comem_ray.training.metrics import MetricsLog, read_metrics
from comem_ray.training.runs import check_run, training_section
from jobs.common import StageFailed, Summary, main

FAILURES = 3  # times that workers may die before the job fails
STOPPED = "stopped.txt"  # why a run was given up: another try would end the same way


def run(config: Config) -> Summary:
    """Trains to the last step. What is there already is kept; a finished run takes no step."""
    training, folder = training_section(config), config.folder("training")
    checkpoints, steps = check_run(config)
    kept = checkpoints.latest_step()
    stopped = folder / STOPPED
    stopped.unlink(missing_ok=True)
    if kept < steps:
        workers = training.workers
        resources = {"CPU": workers.cpus, "GPU": workers.gpus} if workers.gpus else {"CPU": workers.cpus}
        TorchTrainer(
            _worker,
            train_loop_config=config.model_dump(mode="json"),
            scaling_config=ScalingConfig(
                num_workers=workers.count, use_gpu=bool(workers.gpus), resources_per_worker=resources
            ),
            run_config=RunConfig(storage_path=str(folder / "ray"), failure_config=FailureConfig(max_failures=FAILURES)),
        ).fit()
        shutil.rmtree(folder / "ray", ignore_errors=True)  # Ray's own bookkeeping; ours is beside it
    report = write_report(folder, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    if stopped.exists():
        raise StageFailed(f"{stopped.read_text(encoding='utf-8')}\ncurves: {report}")
    if config.adapter.path is not None:
        checkpoints.publish(resolve(config.adapter.path))
    last = [row for row in read_metrics(folder) if "loss" in row][-1]
    adapter = (config.adapter.path and resolve(config.adapter.path)) or checkpoints.latest()
    return {
        "steps": steps,
        "kept": kept,
        "loss": round(last["loss"], 4),
        "adapter": str(adapter),
        "report": str(report),
    }


def _worker(settings: dict[str, Any]) -> None:
    config = Config.model_validate(settings)
    workers, context = training_section(config).workers, ray.train.get_context()
    if not workers.gpus:
        torch.set_num_threads(max(1, int(workers.cpus)))
    rank, count = context.get_world_rank(), context.get_world_size()
    trainer = Trainer(config, "cuda" if workers.gpus else "cpu", rank, count, _total if count > 1 else None)
    log = MetricsLog(config.folder("training"), trainer.checkpoints.latest_step()) if rank == 0 else None
    try:
        for report in trainer.run():
            figures = asdict(report)
            validation = figures.pop("validation")
            if log is not None:
                log.step(figures)
                if validation is not None:
                    log.validation(report.step, validation)
            ray.train.report(figures)
    except Diverged as error:  # all workers see the same loss; to raise would have Ray start them again
        if rank == 0:
            (config.folder("training") / STOPPED).write_text(str(error), encoding="utf-8")


def _total(tensors: Sequence[Tensor]) -> None:
    """Sums over the workers; each sample's gradient already carries its weight in the global batch."""
    for tensor in tensors:
        torch.distributed.all_reduce(tensor)


def dry_run(config: Config) -> str:
    """What the run would take, as text."""
    training_section(config)
    return "\n".join(estimate(config).lines())


if __name__ == "__main__":
    main("train", run, __doc__ or "", dry_run)
