"""The section `training`: the fine-tune of the adapter, and its validation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from comem_ray.config.base import Section, WorkersConfig


class ValidationConfig(Section):
    """Questions about entities that training never sees, answered during training. Each has its own scoring rule."""

    data: str = Field(description="folder of the validation shards (parquet, TRAINING_SCHEMA, with gold answers)")
    every: int = Field(
        100, ge=1, description="steps between validations; the last step always has one; fewer cost more time"
    )
    questions: int = Field(200, ge=1, description="number of questions, the first ones; more is surer and slower")
    modes: list[Literal["none", "rag", "memory"]] = Field(
        ["none", "rag", "memory"], min_length=1, description="modes that answer every question"
    )


class TrainingConfig(Section):
    """The fine-tune of the adapter. One epoch of the paper has 15.6 thousand samples, in some 975 steps."""

    data: str = Field(description="folder of the training shards (parquet, TRAINING_SCHEMA)")
    start: str | None = Field(
        None, description="adapter folder to continue from; null: new weights of the sizes in `adapter`"
    )
    unusable_samples: Literal["leave_out", "refuse"] = Field(
        "leave_out",
        description="what becomes of samples that cannot be used, such as one with a damaged image: 'leave_out' lists "
        "them and trains on the others, 'refuse' ends the run before its first step",
    )
    items: int = Field(3, ge=1, description="items per sample, best first; more is steadier and slower")
    items_together: bool = Field(
        False,
        description="true puts samples over the same items next to each other: a micro-batch encodes each item once",
    )
    epochs: int = Field(1, ge=1, description="passes over all samples; more learns more and overfits more")
    max_steps: int | None = Field(None, ge=1, description="most optimizer steps; null: as many as the epochs have")
    global_batch: int = Field(16, ge=1, description="samples per step, over all workers; more is steadier and slower")
    micro_batch: int = Field(
        4, ge=1, description="samples per forward pass of one worker; more is faster and needs more memory"
    )
    learning_rate: float = Field(
        5e-5, gt=0, description="peak learning rate, after the warm-up; more learns faster and may diverge"
    )
    weight_decay: float = Field(
        0.1, ge=0, description="AdamW's decay of matrices; more keeps weights smaller; biases and norms have none"
    )
    warmup: float = Field(0.03, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    clip_norm: float = Field(3.0, gt=0, description="gradient norm above which gradients are scaled down to it")
    gradient_checkpointing: bool = Field(
        True, description="recompute activations in the backward pass: less memory, a third more time"
    )
    distillation: float = Field(
        0.0, ge=0, description="weight of the KL divergence from the rag mode of the same backbone; 0 is off"
    )
    checkpoint_every: int = Field(
        100, ge=1, description="steps between checkpoints; fewer lose less work when a run is killed, but take time"
    )
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints that are kept; more take more disk")
    max_loss: float = Field(20.0, gt=0, description="loss in nats above which the run stops; NaN stops it too")
    validation: ValidationConfig | None = Field(None, description="validation during training; null: none")
    peak_tflops: float | None = Field(
        None,
        gt=0,
        description="dense TFLOP/s of a worker's device, for MFU; null: known for common GPUs, else none",
    )
    workers: WorkersConfig = Field(WorkersConfig(), description="data-parallel workers, one backbone each")
