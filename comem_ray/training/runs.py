"""What a training run is: its samples, its length, its identity and its checkpoints. Loads no weights of a model."""

from __future__ import annotations

from typing import Any

from comem_ray.config import Config, ConfigError, TrainingConfig, resolve
from comem_ray.knowledge.items import ItemStore
from comem_ray.model.adapter import adapter_files
from comem_ray.model.checkpoint import checkpoint_fingerprint, checkpoint_folder
from comem_ray.tasks.rules.own import check_rules, import_rules
from comem_ray.training.checkpoints import Checkpoints
from comem_ray.training.data.samples import SampleSet, steps_of

_CHANGES_NOTHING = {
    "checkpoint_every",
    "data",  # its contents count, not its place
    "gradient_checkpointing",
    "keep_checkpoints",
    "max_loss",
    "micro_batch",
    "peak_tflops",
    "start",  # likewise
    "validation",
    "workers",
}


def section(config: Config) -> TrainingConfig:
    """The section `training`. Raises ConfigError where there is none."""
    if config.training is None:
        raise ConfigError("field training: missing; it says what to train on, and how")
    return config.training


def training_samples(config: Config) -> SampleSet:
    """The samples of a run. Raises ArtifactError where there is none, or one names an unknown item."""
    return _samples(config, section(config).data)


def validation_samples(config: Config) -> SampleSet:
    """The samples that a run is validated on. Raises like training_samples, and ConfigError for an unknown rule."""
    validation = section(config).validation
    assert validation is not None
    samples = _samples(config, validation.data)
    check_rules("training.validation.data", samples.rules(), import_rules(config.scoring_rules))
    return samples


def planned_steps(config: Config, samples: SampleSet) -> int:
    """Optimizer steps of a run."""
    training = section(config)
    return steps_of(len(samples), training.global_batch, training.epochs, training.max_steps)


def run_checkpoints(config: Config, samples: SampleSet) -> Checkpoints:
    """The checkpoints of a run, under the identity that makes two runs one: all that changes what is computed."""
    training = section(config)
    identity: dict[str, Any] = {
        "backbone": checkpoint_fingerprint(checkpoint_folder(config.backbone.model)),
        "samples": samples.digest,
        "seed": config.seed,
        "start": None if training.start is None else adapter_files(resolve(training.start)),
        "adapter": config.adapter.model_dump(mode="json", exclude={"path"}),
        "training": training.model_dump(mode="json", exclude=_CHANGES_NOTHING),
    }
    return Checkpoints(config.folder("training") / "checkpoints", identity, training.keep_checkpoints)


def checked(config: Config) -> tuple[Checkpoints, int]:
    """The checkpoints and the number of steps of a run that can begin, or go on.

    Raises ConfigError or ArtifactError, before anything costly, for all that would stop it: no or foreign data, the
    checkpoints of another run in its folder, an adapter of other making at adapter.path.
    """
    samples = training_samples(config)
    if section(config).validation is not None:
        validation_samples(config)
    checkpoints = run_checkpoints(config, samples)
    checkpoints.refuse_another_run()
    if config.adapter.path is not None:
        checkpoints.refuse_another_target(resolve(config.adapter.path))
    return checkpoints, planned_steps(config, samples)


def _samples(config: Config, data: str) -> SampleSet:
    store, most = ItemStore(config.folder("items")), config.ingest.images.max_pixels
    return SampleSet(resolve(data), store, section(config).items, most)
