"""The training loop of one worker: steps, their figures, checkpoints, and the continuation of a killed run.

Knows nothing of Ray or processes: the caller passes the function that sums gradients over workers.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from comem_ray.config import Config
from comem_ray.model.adapter import Adapter, attach_adapter
from comem_ray.model.backbone import Backbone, load_backbone
from comem_ray.model.lora import adapter_enabled
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.reasoner import Reasoner
from comem_ray.training.data.samples import batch_of, share_of
from comem_ray.training.objective import NOTHING, Figures, Objective
from comem_ray.training.optimizer import MasterAdamW
from comem_ray.training.runs import planned_steps, run_checkpoints, training_samples, validation_samples
from comem_ray.training.validation import Validator

SumOverWorkers = Callable[[Sequence[Tensor]], None]
"""Replaces each tensor by its sum over all workers, in place."""


class Diverged(RuntimeError):
    """The loss is NaN, infinite or far too high. The message names the step and the last good checkpoint."""


@dataclass(frozen=True)
class StepReport:
    """The figures of one optimizer step. Losses are means over its samples, in nats."""

    step: int  # number of this step, from 1
    steps: int
    loss: float
    distillation: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    samples_per_s: float
    tokens_per_s: float  # tokens read by encoder and reasoner
    tflops: float  # useful work of this worker; the recomputation of gradient checkpointing is not counted
    mfu: float | None  # tflops over the device's peak; None if the peak is not known
    memory_gb: float  # peak of the GPU, or of the process on a CPU
    validation: dict[str, float] | None = None  # percent right by mode, and n; worker 0 only, if validated


class Trainer:
    """One worker of a run. Raises ValueError without a section `training`."""

    def __init__(
        self, config: Config, device: str = "cpu", rank: int = 0, workers: int = 1, total: SumOverWorkers | None = None
    ):
        if config.training is None:
            raise ValueError("the configuration has no section 'training'")
        self.config, self.training = config, config.training
        # Training makes the adapter that adapter.path names. It continues training.start, or starts with new weights.
        start = config.adapter.model_copy(update={"path": config.training.start})
        self.rank, self.workers, self.total = rank, workers, total or (lambda tensors: None)
        self.backbone = load_backbone(config.backbone, device)
        self.adapter = attach_adapter(start, self.backbone, trainable=True)
        if self.training.gradient_checkpointing:
            self.backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
        encoder = MemoryEncoder(config, backbone=self.backbone, adapter=self.adapter)
        reasoner = Reasoner(config, backbone=self.backbone, adapter=self.adapter)
        self.objective = Objective(encoder, reasoner, self.training.distillation)
        self.samples = training_samples(config)
        self.validator = None
        if rank == 0 and self.training.validation is not None:
            self.validator = Validator(config, validation_samples(config), encoder, reasoner)
        self.sets = self.samples.sets() if self.training.items_together else None
        self.steps = planned_steps(config, self.samples)
        self.optimizer = MasterAdamW(trainable_parameters(self.adapter), self.training, self.steps)
        self.checkpoints = run_checkpoints(config, self.samples)
        self.peak_tflops = self.training.peak_tflops or known_peak(device)

    def run(self) -> Iterator[StepReport]:
        """Runs the remaining steps and yields a report of each. Worker 0 saves checkpoints.

        A step is saved after its report was taken. A run killed in between repeats and reports that step.
        """
        for step in range(self.checkpoints.restore(self.optimizer), self.steps):
            report = self._step(step)
            last = report.step == self.steps
            yield self._validated(report, last)
            if self.rank == 0 and (last or report.step % self.training.checkpoint_every == 0):
                self.checkpoints.save(report.step, self.adapter, self.optimizer)

    def _validated(self, report: StepReport, last: bool) -> StepReport:
        if self.validator is None:
            return report
        assert self.training.validation is not None
        due = last or report.step % self.training.validation.every == 0
        return replace(report, validation=self.validator.figures()) if due else report

    def _step(self, step: int) -> StepReport:
        start = time.monotonic()
        # Dropout depends on the step and the worker alone: a resumed run draws what an uninterrupted one draws.
        torch.manual_seed(self.config.seed * 1_000_003 + step * 1_009 + self.rank)
        indices = batch_of(step, len(self.samples), self.training.global_batch, self.config.seed, self.sets)
        own = share_of(indices, self.rank, self.workers)
        figures = NOTHING
        for first in range(0, len(own), self.training.micro_batch):
            samples = [self.samples.get(i) for i in own[first : first + self.training.micro_batch]]
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
        tflops = flops_per_token(self.backbone) * tokens / self.workers / seconds / 1e12
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
            tflops=tflops,
            mfu=tflops / self.peak_tflops if self.peak_tflops else None,
            memory_gb=_peak_memory_gb(self.backbone.device),
        )


def trainable_parameters(adapter: Adapter) -> dict[str, nn.Parameter]:
    """The adapter's parameters by name: every LoRA matrix, and the whole Q-Former."""
    with adapter_enabled(adapter.lora):
        lora = {n: p for n, p in adapter.lora.named_parameters() if p.requires_grad}
    return {**lora, **{f"qformer.{n}": p for n, p in adapter.qformer.named_parameters()}}


def flops_per_token(backbone: Backbone) -> float:
    """FLOPs per token in the language model, forward and backward to its input.

    Each weight of a layer counts 2 for the forward pass and 2 for the gradient of the input (weights are frozen). Left
    out are attention scores, the vision tower, the Q-Former and lm_head (less than a tenth at 7B).
    """
    layers = backbone.language_model.layers
    weights = sum(p.numel() for n, p in layers.named_parameters() if p.ndim == 2 and ".lora_" not in n)
    return 4.0 * weights


# Dense bfloat16 TFLOP/s by a part of the GPU's name, from the data sheets.
PEAKS = {"H100 PCIe": 756.0, "H100": 989.0, "H200": 989.0, "B200": 2250.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0}


def known_peak(device: str) -> float | None:
    """Peak TFLOP/s of the GPU; None for a CPU, and for a GPU that is not in the table."""
    if device == "cpu":
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def _peak_memory_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts in KiB
