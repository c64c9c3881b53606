"""The parts of a training run: its samples, its length, its identity and its checkpoints. Loads no model weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from comem_ray.artifacts import ArtifactError, fingerprint, load_manifest, write_json
from comem_ray.config import Config, ConfigError, TrainingConfig
from comem_ray.home import resolve
from comem_ray.knowledge.items import STAGE as ITEMS
from comem_ray.knowledge.items import ItemStore
from comem_ray.model.adapter import adapter_files
from comem_ray.model.checkpoint import checkpoint_fingerprint, checkpoint_folder
from comem_ray.tasks.rules.own import check_rules, import_rules
from comem_ray.training.checkpoints import Checkpoints
from comem_ray.training.data.checks import SampleCheck, UnusableSample
from comem_ray.training.data.samples import SampleSet, read_shards, steps_of

TRAINING, VALIDATION = "samples", "validation_samples"

# Fields of `training` that do not change the result.
_NOT_IDENTITY = {
    "checkpoint_every",
    "data",  # the samples in it count, not the folder
    "gradient_checkpointing",
    "keep_checkpoints",
    "max_loss",
    "micro_batch",
    "peak_tflops",
    "unusable_samples",
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
    """The usable samples of a run. Raises ArtifactError if there are none, or where unusable ones are refused."""
    return _samples(config, training_section(config).data, TRAINING)


def validation_samples(config: Config) -> SampleSet:
    """The samples that a run is validated on. Raises like training_samples, and ConfigError for an unknown rule."""
    validation = training_section(config).validation
    assert validation is not None
    names = {str(rule) for _, table in read_shards(resolve(validation.data)) for rule in table["rule"].unique()}
    check_rules("training.validation.data", names - {"None"}, import_rules(config.scoring_rules))
    return _samples(config, validation.data, VALIDATION)


def unusable_samples(config: Config, kind: str = TRAINING) -> list[UnusableSample]:
    """The samples of `kind` (TRAINING or VALIDATION) that cannot be used; checked once, while nothing changes.

    They are listed in training/unusable_<kind>.json below the run's root.
    """
    training, path = training_section(config), unusable_path(config, kind)
    assert kind == TRAINING or training.validation is not None
    folder = resolve(training.data if kind == TRAINING else training.validation.data)  # type: ignore[union-attr]
    key = _check_key(config, folder)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["checked"] == key:
            return [UnusableSample(**sample) for sample in stored["unusable"]]
    except (OSError, ValueError, TypeError, KeyError):  # not there, or of another make
        pass
    own_rules = import_rules(config.scoring_rules) if kind == VALIDATION else None
    unusable = SampleCheck(config, ItemStore(config.folder("items")), own_rules).unusable(folder)
    write_json(path, {"checked": key, "count": len(unusable), "unusable": [asdict(sample) for sample in unusable]})
    return unusable


def unusable_path(config: Config, kind: str = TRAINING) -> Path:
    """The file that lists the samples of `kind` that cannot be used."""
    return config.folder("training") / f"unusable_{kind}.json"


def _check_key(config: Config, folder: Path) -> str:
    """A digest of all that says whether a sample can be used; shards by name, size and time."""
    training = training_section(config)
    shards = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.parquet"))]
    return fingerprint(
        [
            shards,
            load_manifest(config.folder("items"), ITEMS).fingerprint,
            checkpoint_fingerprint(checkpoint_folder(config.backbone.model)),
            config.backbone.model_dump(mode="json", include={"item_pixels", "question_pixels"}),
            config.reasoner.model_dump(mode="json", include={"max_prompt_tokens", "max_new_tokens"}),
            [training.items, training.distillation > 0, config.adapter.queries, config.ingest.images.max_pixels],
            config.scoring_rules,
        ]
    )


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


def _samples(config: Config, data: str, kind: str) -> SampleSet:
    unusable, training = unusable_samples(config, kind), training_section(config)
    if unusable and training.unusable_samples == "refuse":
        first, path = unusable[0], unusable_path(config, kind)
        raise ArtifactError(
            f"{resolve(data)} holds {len(unusable)} samples that cannot be used, the first is row {first.row + 1} of "
            f"{first.shard} ({first.reason}: {first.detail}); all are listed in "
            f"{path}; training.unusable_samples: leave_out trains on the others"
        )
    store, max_pixels = ItemStore(config.folder("items")), config.ingest.images.max_pixels
    return SampleSet(resolve(data), store, training.items, max_pixels, {sample.position for sample in unusable})
