"""Trains the memory encoder's adapter (LoRA and Q-Former) through the frozen backbone, on Ray Train.

    ray job submit --working-dir . -- python -m jobs.train --config configs/qwen2_5_vl_7b.yaml [--dry-run]

Each worker holds one backbone and computes its share of each step's samples. A worker that dies is started again from
the last checkpoint. A run that is killed goes on when the same command is run again. The weights are the same either
way. The figures of every step go to training/metrics.jsonl and to TensorBoard files, the curves to
training/report.html. The finished adapter is copied to adapter.path. `--dry-run` prints what the run would take, and
runs nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread
from typing import Any

import ray.train
import torch
import yaml
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import Tensor

from comem_ray.artifacts import ArtifactError, write_atomic
from comem_ray.config import Config, ConfigError, resolve
from comem_ray.report.training import write_report
from comem_ray.training.estimate import estimate
from comem_ray.training.loop import Diverged, Trainer
from comem_ray.training.metrics import MetricsLog, read_metrics
from comem_ray.training.runs import VALIDATION, check_run, training_section, unusable_path, unusable_samples
from jobs.common import StageFailed, Summary, main
from jobs.console import Progress
from jobs.refusals import raise_refusal, to_text

FAILURES = 3  # times that workers may die before the job fails
# Files by which a worker ends a run for good: another try would end the same way.
STOPPED = "stopped.txt"  # why the training failed
REFUSED = "refused.json"  # what of the configuration or of an artifact cannot be used
POLL_S = 1


def run(config: Config) -> Summary:
    """Trains to the last step. What is there already is kept; a finished run takes no step."""
    folder = config.folder("training")
    checkpoints, steps = check_run(config)
    kept = checkpoints.latest_step()
    for name in (STOPPED, REFUSED):
        (folder / name).unlink(missing_ok=True)
    if kept < steps:
        with _progress(folder, kept, steps):
            _trainer(config).fit()
        shutil.rmtree(folder / "ray", ignore_errors=True)  # Ray's own bookkeeping; ours is beside it
    if (folder / REFUSED).exists():
        raise_refusal((folder / REFUSED).read_text(encoding="utf-8"))
    report = write_report(folder, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    if (folder / STOPPED).exists():
        raise StageFailed(f"{(folder / STOPPED).read_text(encoding='utf-8')}\ncurves: {report}")
    if config.adapter.path is not None:
        checkpoints.publish(resolve(config.adapter.path))
    last = [row for row in read_metrics(folder) if "loss" in row][-1]
    adapter = (config.adapter.path and resolve(config.adapter.path)) or checkpoints.latest()
    return {
        "steps": steps,
        "kept": kept,
        **_skipped(config),
        "loss": round(last["loss"], 4),
        "adapter": str(adapter),
        "report": str(report),
    }


def _skipped(config: Config) -> Summary:
    """The number of samples that cannot be used and were left out; where there are any, the files that list them."""
    summary: Summary = {"skipped": len(unusable_samples(config))}
    if summary["skipped"]:
        summary["unusable samples"] = str(unusable_path(config))
    if training_section(config).validation is not None and (unusable := unusable_samples(config, VALIDATION)):
        summary["skipped of validation"] = len(unusable)
        summary["unusable of validation"] = str(unusable_path(config, VALIDATION))
    return summary


def _trainer(config: Config) -> TorchTrainer:
    workers, folder = training_section(config).workers, config.folder("training")
    resources = {"CPU": workers.cpus, "GPU": workers.gpus} if workers.gpus else {"CPU": workers.cpus}
    return TorchTrainer(
        _worker,
        train_loop_config=config.model_dump(mode="json"),
        scaling_config=ScalingConfig(
            num_workers=workers.count, use_gpu=bool(workers.gpus), resources_per_worker=resources
        ),
        run_config=RunConfig(storage_path=str(folder / "ray"), failure_config=FailureConfig(max_failures=FAILURES)),
    )


@contextmanager
def _progress(folder: Path, kept: int, steps: int) -> Iterator[None]:
    """Shows the steps that the workers have written to metrics.jsonl, while the block runs."""
    progress, ended = Progress("train", steps, "steps", kept), Event()

    def follow() -> None:
        last = False
        while not last:
            last = ended.wait(POLL_S)
            step = max((row["step"] for row in read_metrics(folder)), default=0)
            if step > progress.count:  # not so where workers that died do steps again
                progress.advance(step - progress.count)

    thread = Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs in each worker. A refusal ends the run and is left in REFUSED."""
    config, context = Config.model_validate(settings), ray.train.get_context()
    refused, count = config.folder("training") / REFUSED, context.get_world_size()
    if refused.exists():  # these workers were started again, see below
        return
    try:
        _train(config, context.get_world_rank(), count)
    except (ConfigError, ArtifactError) as error:
        text = to_text(error)
        write_atomic(refused, lambda path: path.write_text(text, encoding="utf-8"))
        if count > 1:  # the other workers wait for this one: Ray ends them all, and starts them again
            raise


def _train(config: Config, rank: int, count: int) -> None:
    workers = training_section(config).workers
    if not workers.gpus:
        torch.set_num_threads(workers.thread_count)
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
    main("train", run, __doc__, dry_run)
