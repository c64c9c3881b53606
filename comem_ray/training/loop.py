"""The training loop of one worker: steps, their figures, checkpoints, and going on where a killed run stopped.

Knows nothing of Ray or processes: how gradients are summed over workers is a function it is given.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from comem_ray.config import Config, Training, resolve
from comem_ray.items import ItemStore
from comem_ray.model.backbone import Backbone, load_backbone
from comem_ray.model.checkpoint import Adapter, attach_adapter, checkpoint_fingerprint, checkpoint_folder
from comem_ray.model.lora import switched_on
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.reasoner import Reasoner
from comem_ray.training.checkpoints import Checkpoints
from comem_ray.training.objective import NOTHING, Figures, Objective
from comem_ray.training.optimizer import MasterAdamW
from comem_ray.training.samples import SampleSet, batch_of, share_of, steps_of

SumOverWorkers = Callable[[Sequence[Tensor]], None]
"""Replaces each tensor by its sum over all workers, in place."""


class Diverged(RuntimeError):
    """The loss is no number or far too high. The message names the step and the last good checkpoint."""


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step did; losses are means over its samples, in nats."""

    step: int  # steps done, this one included
    steps: int
    loss: float
    distillation: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    samples_per_s: float
    tokens_per_s: float  # tokens read by encoder and reasoner
    tflops: float  # useful work; the recomputation of gradient checkpointing is not counted
    memory_gb: float  # peak of the GPU; 0 on a CPU


class Trainer:
    """One worker of a run."""

    def __init__(
        self, config: Config, device: str = "cpu", rank: int = 0, workers: int = 1, total: SumOverWorkers | None = None
    ):
        if config.training is None:
            raise ValueError("the configuration has no section 'training'")
        self.config, self.training = config, config.training
        self.rank, self.workers, self.total = rank, workers, total or (lambda tensors: None)
        self.backbone = load_backbone(config.backbone, device)
        self.adapter = attach_adapter(config.adapter, self.backbone, trainable=True)
        if self.training.gradient_checkpointing:
            self.backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
        encoder = MemoryEncoder(config, backbone=self.backbone, adapter=self.adapter)
        reasoner = Reasoner(config, backbone=self.backbone)
        self.objective = Objective(encoder, reasoner, self.training.distillation)
        store = ItemStore(config.folder("items"))
        self.samples = SampleSet(
            resolve(self.training.data), store, self.training.items, config.ingest.pictures.max_pixels
        )
        batch, epochs, most = self.training.global_batch, self.training.epochs, self.training.max_steps
        self.steps = steps_of(len(self.samples), batch, epochs, most)
        self.optimizer = MasterAdamW(trainable_parameters(self.adapter), self.training, self.steps)
        self.fingerprint = checkpoint_fingerprint(checkpoint_folder(config.backbone.model))
        identity = {"backbone": self.fingerprint, "samples": len(self.samples), **_identity(config)}
        folder = config.folder("training") / "checkpoints"
        self.checkpoints = Checkpoints(folder, identity, self.training.keep_checkpoints)

    def run(self) -> Iterator[StepReport]:
        """Takes the steps that are left, saves checkpoints (worker 0), and yields a report after each step."""
        for step in range(self.checkpoints.restore(self.optimizer), self.steps):
            report = self._step(step)
            last = report.step == self.steps
            if self.rank == 0 and (last or report.step % self.training.checkpoint_every == 0):
                self.checkpoints.save(report.step, self.adapter, self.config.adapter, self.fingerprint, self.optimizer)
            yield report

    def _step(self, step: int) -> StepReport:
        start = time.monotonic()
        # Dropout depends on the step and the worker alone: a resumed run draws what an uninterrupted one draws.
        torch.manual_seed(self.config.seed * 1_000_003 + step * 1_009 + self.rank)
        indices = batch_of(step, len(self.samples), self.training.global_batch, self.config.seed)
        mine = share_of(indices, self.rank, self.workers)
        figures = NOTHING
        for first in range(0, len(mine), self.training.micro_batch):
            samples = [self.samples.get(i) for i in mine[first : first + self.training.micro_batch]]
            figures += self.objective.backward(samples, 1 / self.training.global_batch)
            self.optimizer.collect()
        self.total(self.optimizer.gradients())
        figures = self._summed(figures)
        self._refuse_divergence(step, figures.loss / figures.samples)
        norm, rate = self.optimizer.step(step)
        return self._report(step, figures, norm, rate, time.monotonic() - start)

    def _summed(self, figures: Figures) -> Figures:
        values = torch.tensor(list(asdict(figures).values()), dtype=torch.float64, device=self.backbone.device)
        self.total([values])
        loss, kl, *counts = values.tolist()
        return Figures(loss, kl, *(int(c) for c in counts))

    def _refuse_divergence(self, step: int, loss: float) -> None:
        if not math.isfinite(loss) or loss > self.training.max_loss:
            raise Diverged(
                f"step {step + 1}: the loss is {loss:.4g}, the limit is {self.training.max_loss:.4g}; the last good "
                f"checkpoint is {self.checkpoints.latest() or '(none yet)'}. Lower training.learning_rate or clip_norm"
            )

    def _report(self, step: int, figures: Figures, norm: float, rate: float, seconds: float) -> StepReport:
        tokens = figures.encoder_tokens + figures.reasoner_tokens
        peak = torch.cuda.max_memory_allocated() / 1e9 if self.backbone.device.type == "cuda" else 0.0
        return StepReport(
            step=step + 1,
            steps=self.steps,
            loss=figures.loss / figures.samples,
            distillation=figures.distillation / figures.samples,
            learning_rate=rate,
            gradient_norm=norm,
            seconds=seconds,
            samples_per_s=figures.samples / seconds,
            tokens_per_s=tokens / seconds,
            tflops=flops_a_token(self.backbone) * tokens / seconds / 1e12,
            memory_gb=peak,
        )


def trainable_parameters(adapter: Adapter) -> dict[str, nn.Parameter]:
    """The adapter's parameters by name: every LoRA matrix, and the whole Q-Former."""
    with switched_on(adapter.lora):
        lora = {n: p for n, p in adapter.lora.named_parameters() if p.requires_grad}
    return {**lora, **{f"qformer.{n}": p for n, p in adapter.qformer.named_parameters()}}


def flops_a_token(backbone: Backbone) -> float:
    """Multiply-adds x 2 of a token through the language model, forward and backward to its input.

    2 for the forward pass and 2 for the gradient of the input (the weights are frozen) for each weight of a layer; the
    attention scores, the vision tower, the Q-Former and lm_head are left out (under a tenth at 7B).
    """
    layers = backbone.model.model.language_model.layers
    weights = sum(p.numel() for n, p in layers.named_parameters() if p.ndim == 2 and ".lora_" not in n)
    return 4.0 * weights


def _identity(config: Config) -> dict[str, Any]:
    """The fields that change what a run computes; how often it saves or on how many workers it runs does not."""
    assert config.training is not None
    free = {"checkpoint_every", "keep_checkpoints", "workers", "max_loss", "gradient_checkpointing", "micro_batch"}
    training: Training = config.training
    return {
        "seed": config.seed,
        "adapter": config.adapter.model_dump(mode="json"),
        "training": training.model_dump(mode="json", exclude=free),
    }
