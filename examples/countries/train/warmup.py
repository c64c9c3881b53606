"""Stage `warmup`: the adapter learns to write the notes that the base has learned to read.

The base is frozen. The encoder (LoRA on) and the Q-Former, which stage `reading` has trained, read an item and give its
memory. The loss compares it with the item's notes (`notes_loss`). The LoRA of the vision tower stays without effect
(B = 0), since images come from the cache.

The paper has no such stage: from a random adapter its objective first learns which answers are common, and carries
nothing for a long time.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from comem_ray.artifacts import file_sha256
from comem_ray.artifacts import fingerprint as digest
from comem_ray.config import Config, resolve
from comem_ray.model.adapter import adapter_files, attach_adapter, save_adapter
from comem_ray.model.lora import adapter_enabled
from comem_ray.model.memory_encoder import MemoryEncoder, length_buckets
from comem_ray.model.sequences import TokenSequence
from comem_ray.prompts import item_turn
from comem_ray.training.loop import trainable_parameters
from examples.countries.train.compilation import compile_layers
from examples.countries.train.country_samples import CountrySampler
from examples.countries.train.image_cache import CachedImageBackbone
from examples.countries.train.notes import Codebook
from examples.countries.train.notes_loss import NotesTarget, notes_loss, notes_target
from examples.countries.train.reading import QFORMER
from examples.countries.train.stage_loop import Plan, StageLoop

ADAPTER = "adapter"

PLAN = Plan(steps=360, learning_rate=7e-4, checkpoint_every=25)


@dataclass(frozen=True)
class WarmupSizes:
    """Sizes of the stage."""

    plan: Plan = PLAN
    batch: int = 32  # items per step
    batch_tokens: int = 1792  # in one forward pass, padding included
    compile: bool = True
    seed: int = 0


def warm_up(
    backbone: CachedImageBackbone,
    sampler: CountrySampler,
    book: Codebook,
    config: Config,
    folder: Path,
    sizes: WarmupSizes,
    fingerprint: str,
    stop_after: int | None = None,
    workers: int = 0,
) -> None:
    """Trains an adapter on `backbone`, whose checkpoint has that `fingerprint`, and writes it to `folder`/adapter.

    It starts from `config.adapter.path`, on other items than those it was trained with; without a path, from the
    Q-Former that stage `reading` left in `folder`. `workers` other processes make the items. Nothing is written where
    `stop_after` ended it before the last step.
    """
    adapter = attach_adapter(config.adapter, backbone, trainable=True)
    encoder = MemoryEncoder(config, backbone=backbone, adapter=adapter)
    if config.adapter.path is None:
        adapter.qformer.load_state_dict(load_file(folder / QFORMER))
        seed, start = f"warmup {sizes.seed}", file_sha256(folder / QFORMER)
    else:
        # The seed depends on the adapter: a second round would otherwise have the first round's items again.
        start = digest(adapter_files(resolve(config.adapter.path)))
        seed = f"warmup {sizes.seed} {start}"
    if sizes.compile:
        compile_layers(backbone.model)
    parameters = trainable_parameters(adapter)
    device_book = book.to(backbone.device)

    def make(number: int) -> _Batch:
        rng = random.Random(f"{seed} {number}")
        items = [sampler.draw_item(rng) for _ in range(sizes.batch)]
        sequences = [backbone.sequencer.sequence(item_turn(text, image)) for _, text, image in items]
        return _Batch(sequences, notes_target(items, backbone.sequencer, book))

    stage_sizes = dataclasses.asdict(dataclasses.replace(sizes, compile=False))
    inputs = [stage_sizes, config.adapter.model_dump(), seed, start, fingerprint]
    loop = StageLoop(folder, "warmup", parameters, sizes.plan, inputs)
    loop.run(make, lambda batch: _backward(encoder, device_book, batch, sizes.batch_tokens), stop_after, workers)
    if stop_after is None or stop_after >= sizes.plan.steps:
        (folder / ADAPTER).mkdir(parents=True, exist_ok=True)
        save_adapter(folder / ADAPTER, adapter, fingerprint)


@dataclass(frozen=True)
class _Batch:
    """Sequences of items, and what their memory should be. On the CPU."""

    sequences: list[TokenSequence]
    target: NotesTarget


def _backward(encoder: MemoryEncoder, book: Codebook, batch: _Batch, batch_tokens: int) -> dict[str, float]:
    """Adds the gradients of the batch to the adapter's parameters; returns metrics. `book` is on the encoder's device.

    Items of similar length go together: padded to the longest of all, most of a batch would be padding.
    """
    metrics: dict[str, float] = {}
    for group in length_buckets([len(s) for s in batch.sequences], batch_tokens):
        share = len(group) / len(batch.sequences)
        memory = encoder.forward([batch.sequences[i] for i in group])
        loss, group_metrics = notes_loss(memory.float(), batch.target.of(group, memory.device), book)
        with adapter_enabled(encoder.adapter.lora):  # while it is off, its parameters take no gradient
            (share * loss).backward()
        metrics = {name: metrics.get(name, 0.0) + share * value for name, value in group_metrics.items()}
    return metrics
