"""The parts of a training run: its samples, its length, its identity and its checkpoints. Loads no model weights."""

from __future__ import annotations

from typing import Any

from comem_ray.config import Config, ConfigError, TrainingConfig
from comem_ray.home import resolve
from comem_ray.knowledge.items import ItemStore
from comem_ray.model.adapter import adapter_files
from comem_ray.model.checkpoint import checkpoint_fingerprint, checkpoint_folder
from comem_ray.tasks.rules.own import check_rules, import_rules
from comem_ray.training.checkpoints import Checkpoints
from comem_ray.training.data.samples import SampleSet, steps_of

# Fields of `training` that do not change the result.
_NOT_IDENTITY = {
    "checkpoint_every",
    "data",  # the samples in it count, not the folder
    "gradient_checkpointing",
    "keep_checkpoints",
    "max_loss",
    "micro_batch",
    "peak_tflops",
    "start",  # likewise: the files in it count
    "validation",
    "workers",
}


def training_section(config: Config) -> TrainingConfig:
    """The section `training`. Raises ConfigError if it is missing."""
    if config.training is None:
        raise ConfigError("field training: is missing; it says which data to train on, and how")
    return config.training


def training_samples(config: Config) -> SampleSet:
    """The samples of a run. Raises ArtifactError if there are none, or if one names an unknown item."""
    return _samples(config, training_section(config).data)


def validation_samples(config: Config) -> SampleSet:
    """The samples that a run is validated on. Raises like training_samples, and ConfigError for an unknown rule."""
    validation = training_section(config).validation
    assert validation is not None
    samples = _samples(config, validation.data)
    check_rules("training.validation.data", samples.rules(), import_rules(config.scoring_rules))
    return samples


def planned_steps(config: Config, samples: SampleSet) -> int:
    """Optimizer steps of a run."""
    training = training_section(config)
    return steps_of(len(samples), training.global_batch, training.epochs, training.max_steps)


def run_checkpoints(config: Config, samples: SampleSet) -> Checkpoints:
    """The checkpoints of a run, with its identity: all that changes the result."""
    training = training_section(config)
    identity: dict[str, Any] = {
        "backbone": checkpoint_fingerprint(checkpoint_folder(config.backbone.model)),
        "samples": samples.digest,
        "seed": config.seed,
        "start": None if training.start is None else adapter_files(resolve(training.start)),
        "adapter": config.adapter.model_dump(mode="json", exclude={"path"}),
        "training": training.model_dump(mode="json", exclude=_NOT_IDENTITY),
    }
    return Checkpoints(config.folder("training") / "checkpoints", identity, training.keep_checkpoints)


def check_run(config: Config) -> tuple[Checkpoints, int]:
    """The checkpoints and the number of steps of a run that can start or continue.

    Raises ConfigError or ArtifactError, before anything costly, for all that would stop it: missing or other data, the
    checkpoints of another run in its folder, the adapter of another run at adapter.path.
    """
    samples = training_samples(config)
    if training_section(config).validation is not None:
        validation_samples(config)
    checkpoints = run_checkpoints(config, samples)
    checkpoints.refuse_another_run()
    if config.adapter.path is not None:
        checkpoints.refuse_another_target(resolve(config.adapter.path))
    return checkpoints, planned_steps(config, samples)


def _samples(config: Config, data: str) -> SampleSet:
    store, max_pixels = ItemStore(config.folder("items")), config.ingest.images.max_pixels
    return SampleSet(resolve(data), store, training_section(config).items, max_pixels)
