"""Stage `base`: the language model learns to answer from items, and from notes in front, by looking at the image.

A LoRA of rank 48 on its Linear layers is trained, then merged and frozen for good: the result is the demo's "backbone",
as Qwen2.5-VL is the paper's. The mixture has the two inputs that the reasoner has: rag (items in the prompt) and
memory (notes in front, in place of a memory that no encoder can write yet). `base_mixture` draws it, `base_loss` has
the loss.

First come drills, the same in fewer tokens: *read*, the notes of one item and all their facts; *pick*, the notes of
several items, an image, an answer. Turns and questions, many of a sample's tokens, come later.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from comem_ray.config import Config
from examples.countries.backbone import BASE_LORA
from examples.countries.train.base_lora import add_base_lora, save_base_lora
from examples.countries.train.base_loss import BaseLoss, PackedSamples
from examples.countries.train.base_mixture import BaseSizes, batch_of
from examples.countries.train.compilation import compile_layers
from examples.countries.train.country_samples import CountrySampler
from examples.countries.train.image_cache import CachedImageBackbone
from examples.countries.train.notes import Codebook
from examples.countries.train.stage_loop import StageLoop


def train_base(
    backbone: CachedImageBackbone,
    sampler: CountrySampler,
    book: Codebook,
    config: Config,
    folder: Path,
    sizes: BaseSizes,
    tower: str,
    stop_after: int | None = None,
    workers: int = 0,
) -> None:
    """Trains the LoRA and writes `base_lora.safetensors` (bf16) into `folder`. `tower` is the digest of the tower.

    `workers` other processes make the prompts. The LoRA layers stay in `backbone`, enabled. Nothing is written where
    `stop_after` ended it before the last step.
    """
    parameters = add_base_lora(backbone.model, sizes.rank, sizes.seed)
    if sizes.compile:
        compile_layers(backbone.model)
    loss = BaseLoss(config, backbone, book, sizes)
    inputs = [dataclasses.asdict(dataclasses.replace(sizes, compile=False)), tower]
    loop = StageLoop(folder, "base", parameters, sizes.plan, inputs)

    def make(number: int) -> tuple[str, list[PackedSamples]]:
        kind, groups = batch_of(number, sampler, sizes)
        return kind, loss.pack(kind, groups, number)

    loop.run(make, lambda batch: loss.backward(*batch), stop_after, workers)
    if stop_after is None or stop_after >= sizes.plan.steps:
        save_base_lora(parameters, folder / BASE_LORA)
