"""Stage `warmup`: the adapter learns to write the notes that the base has learned to read.

The base is frozen. The encoder (LoRA on) and the Q-Former, which stage `reading` has taught already, read an item and
give its memory, which is compared with the item's exact notes: the direction of the words and that of the signature
apart, by the cosine; the loudness of every token of a slot; the balance of words and signature. The LoRA of the vision
tower stays without effect (B = 0), since images come from the cache.

The paper has no such step: from a random adapter its objective first learns what answers are common, and carries
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
from examples.countries.train.compiled import compile_layers
from examples.countries.train.exact import Exact, exact_notes, notes_loss
from examples.countries.train.image_tokens import SeenBackbone
from examples.countries.train.lessons import Lessons
from examples.countries.train.notes import Codebook
from examples.countries.train.reading import READ
from examples.countries.train.steps import Plan, Steps

ADAPTER = "adapter"

PLAN = Plan(steps=360, learning_rate=7e-4, checkpoint_every=25)


@dataclass(frozen=True)
class Warmup:
    """Sizes of the stage."""

    plan: Plan = PLAN
    batch: int = 32  # items a step
    batch_tokens: int = 1792  # a forward pass, padding included: short texts beside short ones
    compile: bool = True
    seed: int = 0


def warm_up(
    backbone: SeenBackbone,
    lessons: Lessons,
    book: Codebook,
    config: Config,
    folder: Path,
    sizes: Warmup,
    fingerprint: str,
    stop_after: int | None = None,
    workers: int = 0,
) -> None:
    """Trains an adapter on `backbone`, whose checkpoint has that `fingerprint`, and writes it to `folder`/adapter.

    It goes on from `config.adapter.path`, on other items than those it was made with; without one from the Q-Former
    that stage `reading` left in `folder`. Items are made by `workers` other processes. Nothing is written where
    `stop_after` ended it before the last step.
    """
    adapter = attach_adapter(config.adapter, backbone, trainable=True)
    encoder = MemoryEncoder(config, backbone=backbone, adapter=adapter)
    if config.adapter.path is None:
        adapter.qformer.load_state_dict(load_file(folder / READ))
        drawn_by, begun_with = f"warmup {sizes.seed}", file_sha256(folder / READ)
    else:
        # Drawn by the adapter: a second round would otherwise see the first round's items again.
        begun_with = digest(adapter_files(resolve(config.adapter.path)))
        drawn_by = f"warmup {sizes.seed} {begun_with}"
    if sizes.compile:
        compile_layers(backbone.model)
    parameters = trainable_parameters(adapter)
    near = book.to(backbone.device)

    def make(number: int) -> _Items:
        rng = random.Random(f"{drawn_by} {number}")
        items = [lessons.item(rng) for _ in range(sizes.batch)]
        sequences = [backbone.sequencer.sequence(item_turn(text, seen)) for _, text, seen in items]
        return _Items(sequences, exact_notes(items, backbone.sequencer, book))

    sized = dataclasses.asdict(dataclasses.replace(sizes, compile=False))
    made_of = [sized, config.adapter.model_dump(), drawn_by, begun_with, fingerprint]
    steps = Steps(folder, "warmup", parameters, sizes.plan, made_of)
    steps.run(make, lambda items: _backward(encoder, near, items, sizes.batch_tokens), stop_after, workers)
    if stop_after is None or stop_after >= sizes.plan.steps:
        (folder / ADAPTER).mkdir(parents=True, exist_ok=True)
        save_adapter(folder / ADAPTER, adapter, fingerprint)


@dataclass(frozen=True)
class _Items:
    """Items to encode, and what their memory should be. On the CPU."""

    sequences: list[TokenSequence]
    exact: Exact


def _backward(encoder: MemoryEncoder, book: Codebook, items: _Items, batch_tokens: int) -> dict[str, float]:
    """Gradients of the loss of `items`, on the adapter's parameters. `book` is on the encoder's device.

    Items of like length go together: padded to the longest of all, most of a batch would be padding.
    """
    figures: dict[str, float] = {}
    for group in length_buckets([len(s) for s in items.sequences], batch_tokens):
        share = len(group) / len(items.sequences)
        memory = encoder.forward([items.sequences[i] for i in group])
        loss, some = notes_loss(memory.float(), items.exact.of(group, memory.device), book)
        with adapter_enabled(encoder.adapter.lora):  # switched off, its parameters take no gradient
            (share * loss).backward()
        figures = {name: figures.get(name, 0.0) + share * value for name, value in some.items()}
    return figures
