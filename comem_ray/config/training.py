"""The section `training`: the fine-tune of the adapter, and its validation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from comem_ray.config.base import Section, WorkersConfig


class ValidationConfig(Section):
    """Questions about entities that training never sees, answered during training; exact match by each one's rule."""

    data: str = Field(description="folder of validation shards (parquet, TRAINING_SCHEMA, gold answers in provenance)")
    every: int = Field(100, ge=1, description="steps between validations; the last step always has one")
    questions: int = Field(200, ge=1, description="questions asked, the first ones; more is dearer and surer")
    modes: list[Literal["none", "rag", "memory"]] = Field(["none", "rag", "memory"], min_length=1)


class TrainingConfig(Section):
    """The fine-tune of the adapter. One epoch of the paper is 15.6 thousand samples in some 975 steps."""

    data: str = Field(description="folder of training shards (parquet, TRAINING_SCHEMA)")
    start: str | None = Field(None, description="adapter folder to go on from; null: new weights of adapter's sizes")
    items: int = Field(3, ge=1, description="items of a sample, best first; more is dearer and steadier")
    items_together: bool = Field(
        False,
        description="samples over the same items come together: a micro-batch encodes an item once",
    )
    epochs: int = Field(1, ge=1)
    max_steps: int | None = Field(None, ge=1, description="optimizer steps; null: as many as the epochs have")
    global_batch: int = Field(16, ge=1, description="samples a step, over all workers")
    micro_batch: int = Field(4, ge=1, description="samples a forward pass of a worker; more needs memory")
    learning_rate: float = Field(5e-5, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    warmup: float = Field(0.03, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    clip_norm: float = Field(3.0, gt=0, description="gradient norm above which gradients are scaled down")
    gradient_checkpointing: bool = Field(True, description="recompute in backward: less memory, a third more time")
    distillation: float = Field(
        0.0, ge=0, description="weight of the KL to the rag pass of the same backbone; 0 is off"
    )
    checkpoint_every: int = Field(100, ge=1, description="steps between checkpoints; fewer lose less when killed")
    keep_checkpoints: int = Field(2, ge=1, description="checkpoints kept, the newest")
    max_loss: float = Field(20.0, gt=0, description="a loss above it, or one that is no number, stops the run")
    validation: ValidationConfig | None = None
    peak_tflops: float | None = Field(
        None, gt=0, description="of a worker's device, dense, for MFU; null: known for common GPUs, else no MFU"
    )
    workers: WorkersConfig = WorkersConfig()
