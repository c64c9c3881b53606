"""The training loop of one stage: optimizer, metrics, and a checkpoint to resume from.

The checkpoint is one safetensors file: parameters, moments and, as metadata, the number of the step. What a step draws
is a function of its number, so a stage that was stopped and resumed equals one that was not. Knows nothing of what is
learned.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from comem_ray.artifacts import ArtifactError, fingerprint, write_atomic
from comem_ray.config import TrainingConfig
from comem_ray.training.optimizer import MasterAdamW
from examples.countries.train.prefetch import prefetch

log = logging.getLogger(__name__)

LOG_EVERY = 10  # steps

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """Length and learning rate of a stage; the rate rises over `warmup` of the steps, then falls as a cosine."""

    steps: int
    learning_rate: float
    weight_decay: float = 0.0
    warmup: float = 0.05
    checkpoint_every: int = 50


class StageLoop:
    """The loop of stage `name`, with its checkpoint and metrics in `folder`. `inputs` is all else that it depends on.

    Raises ArtifactError where the checkpoint in `folder` is of another stage, plan or input.
    """

    def __init__(
        self, folder: Path, name: str, parameters: Mapping[str, nn.Parameter], plan: Plan, inputs: object = None
    ):
        self.name, self.plan = name, plan
        self.checkpoint = folder / f"{name}.checkpoint.safetensors"
        self.metrics = folder / f"{name}.metrics.jsonl"
        self._identity = fingerprint([name, plan.steps, plan.learning_rate, plan.weight_decay, plan.warmup, inputs])
        training = TrainingConfig(
            data=name,
            learning_rate=plan.learning_rate,
            weight_decay=plan.weight_decay,
            warmup=plan.warmup,
            clip_norm=1.0,
        )
        self._optimizer = MasterAdamW(parameters, training, plan.steps, betas=(0.9, 0.98))
        self._values: dict[str, list[float]] = {}  # since the last line of metrics
        self._since = time.monotonic()

    def run(
        self,
        make: Callable[[int], T],
        step: Callable[[T], dict[str, float]],
        stop_after: int | None = None,
        workers: int = 0,
    ) -> None:
        """Takes the remaining steps. `step(make(n))` leaves gradients on the parameters and returns metrics.

        `make` is called ahead of the steps by `workers` other processes, or here for 0. With `stop_after`, stops after
        that many steps of the whole, as a killed run would, its checkpoint saved.
        """
        remaining = self._remaining()
        for number, inputs in zip(remaining, prefetch(make, remaining, workers), strict=True):
            metrics = step(inputs)
            self._optimizer.collect()
            norm, rate = self._optimizer.step(number)
            done = number + 1
            self._record(done, {**metrics, "gradient_norm": norm, "learning_rate": rate})
            last = done in (self.plan.steps, stop_after)
            if last or done % self.plan.checkpoint_every == 0:
                self._save(done)
            if done == stop_after:
                return

    def _remaining(self) -> range:
        first = self._restore() if self.checkpoint.exists() else 0
        self._keep_metrics(first)
        self._since = time.monotonic()
        return range(first, self.plan.steps)

    def _record(self, done: int, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            self._values.setdefault(key, []).append(value)
        if done % LOG_EVERY and done != self.plan.steps:
            return
        # A metric that a step does not have (no sample of its kind) is NaN there, and left out of the mean.
        means = {k: sum(known) / len(known) for k, v in self._values.items() if (known := [x for x in v if x == x])}
        now = time.monotonic()
        seconds, self._since, self._values = now - self._since, now, {}
        with open(self.metrics, "a", encoding="utf-8") as f:
            f.write(json.dumps({"step": done, "seconds": round(seconds, 2), **means}) + "\n")
        text = ", ".join(f"{k} {v:.4g}" for k, v in means.items())
        log.info("%s: step %d of %d, %s, %.0f s", self.name, done, self.plan.steps, text, seconds)

    def _keep_metrics(self, first: int) -> None:
        """Drops the lines after step `first`, from which the stage resumes: they will be written again."""
        self.metrics.parent.mkdir(parents=True, exist_ok=True)
        lines = self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.exists() else []
        kept = "".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= first)
        write_atomic(self.metrics, lambda p: p.write_text(kept, encoding="utf-8"))

    def _save(self, done: int) -> None:
        metadata = {"step": str(done), "made_of": self._identity}
        write_atomic(self.checkpoint, lambda p: save_file(self._optimizer.state(), p, metadata=metadata))

    def _restore(self) -> int:
        with safe_open(self.checkpoint, "pt") as f:
            metadata = f.metadata()
        if metadata["made_of"] != self._identity:
            raise ArtifactError(f"{self.checkpoint} is of another run: name another folder, or delete that file")
        self._optimizer.restore(load_file(self.checkpoint))
        log.info("%s: resuming after step %s", self.name, metadata["step"])
        return int(metadata["step"])
