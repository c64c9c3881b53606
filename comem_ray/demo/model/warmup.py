"""Stage `warmup`: the adapter learns to write the notes that the base has learned to read.

The base is frozen. The encoder (LoRA on) and the Q-Former read an item and give its memory, which is compared with the
item's exact notes: the direction of the words and that of the signature apart, by the cosine; the first token of each
slot, by cross-entropy over the vocabulary at a temperature of 18; the balance of words and signature. The LoRA of the
vision tower stays without effect (B = 0), since pictures come from the cache.

The paper has no such step: from a random adapter its objective first learns what answers are common, and carries
nothing for a long time.

Letters: N items, W slots with words, Q slots, D width.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from comem_ray.config import Config
from comem_ray.demo.countries import Country
from comem_ray.demo.model.lessons import Lessons
from comem_ray.demo.model.notes import SIGNATURE, WORD, Codebook, notes, parts, signatures, slots, word_codes
from comem_ray.demo.model.pictures import SeenBackbone
from comem_ray.demo.model.start import ITEMS, start_qformer
from comem_ray.demo.model.steps import Plan, Steps
from comem_ray.model.adapter import Adapter, attach_adapter, save_adapter
from comem_ray.model.backbone import Backbone
from comem_ray.model.lora import switched_on
from comem_ray.model.memory_encoder import MemoryEncoder, length_buckets
from comem_ray.training.loop import trainable_parameters

TEMPERATURE = 18.0
COSINE, TOKEN = 3.0, 0.5  # weights in the loss
ADAPTER = "adapter"
BATCH_TOKENS = 1024  # a forward pass, padding included

PLAN = Plan(steps=80, learning_rate=1e-3, warmup=0.1, checkpoint_every=20)


@dataclass(frozen=True)
class Warmup:
    """Sizes of the stage."""

    plan: Plan = PLAN
    batch: int = 32  # items a step
    start_items: int = ITEMS
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
) -> None:
    """Trains a new adapter on `backbone`, whose checkpoint has that `fingerprint`, and writes it to `folder`/adapter.

    Nothing is written where `stop_after` ended it before the last step.
    """
    adapter = attach_adapter(config.adapter, backbone, trainable=True)
    encoder = MemoryEncoder(config, backbone=backbone, adapter=adapter)
    start_qformer(encoder, lessons, book, sizes.seed, sizes.start_items)
    parameters = trainable_parameters(adapter)

    def step(number: int) -> dict[str, float]:
        torch.manual_seed(sizes.seed * 1_000_003 + number)  # of LoRA's dropout
        rng = random.Random(f"warmup {sizes.seed} {number}")
        return _backward(encoder, book, [lessons.item(rng) for _ in range(sizes.batch)])

    made_of = [dataclasses.asdict(sizes), config.adapter.model_dump(), fingerprint]
    Steps(folder, "warmup", parameters, sizes.plan, made_of).run(step, stop_after)
    if stop_after is None or stop_after >= sizes.plan.steps:
        _save(folder / ADAPTER, adapter, config, fingerprint)


def _save(folder: Path, adapter: Adapter, config: Config, fingerprint: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(folder, adapter, fingerprint)


def _backward(encoder: MemoryEncoder, book: Codebook, items: list[tuple[Country, str, Any]]) -> dict[str, float]:
    """Gradients of the loss of `items` (country, text, picture as `Seen`), on the adapter's parameters.

    Items of like length go together: padded to the longest of all, most of a batch would be padding.
    """
    sequences = [encoder.sequence(text, seen) for _, text, seen in items]
    figures: dict[str, float] = {}
    for group in length_buckets([len(s) for s in sequences], BATCH_TOKENS):
        share = len(group) / len(items)
        memory = encoder.forward([sequences[i] for i in group])
        loss, some = _group_loss(encoder.backbone, book, [items[i] for i in group], memory)
        with switched_on(encoder.adapter.lora):  # switched off, its parameters take no gradient
            (share * loss).backward()
        figures = {name: figures.get(name, 0.0) + share * value for name, value in some.items()}
    return figures


def _group_loss(
    backbone: Backbone, book: Codebook, items: list[tuple[Country, str, Any]], memory: Tensor
) -> tuple[Tensor, dict[str, float]]:
    assert isinstance(backbone, SeenBackbone)
    signed = signatures(backbone.sequencer.tokens([seen for _, _, seen in items]))
    held = [slots(country, backbone.sequencer.plain_ids) for country, _, _ in items]
    first = torch.tensor([[slot[0][0] for slot in country] for country in held])
    return notes_loss(memory.float().cpu(), notes(word_codes(held, book), signed, book), first, book)


def notes_loss(
    memory_NQD: Tensor, notes_NQD: Tensor, first_NW: Tensor, book: Codebook
) -> tuple[Tensor, dict[str, float]]:
    """How far a memory is from the exact notes; `first_NW` are the first tokens of the slots with words."""
    words, signed = parts(memory_NQD, book)
    exact_words, exact_signed = parts(notes_NQD, book)
    word_cosine = F.cosine_similarity(words, exact_words, dim=-1)
    signature_cosine = F.cosine_similarity(signed, exact_signed, dim=-1)
    logits = TEMPERATURE * F.normalize(words, dim=-1) @ book.words.T
    tokens = F.cross_entropy(logits.flatten(0, 1), first_NW.flatten())
    balance = (words.norm(dim=-1) / signed[:, 1:].norm(dim=-1).clamp(min=1e-3)).clamp(1e-3, 1e3) / (WORD / SIGNATURE)
    loss = COSINE * ((1 - word_cosine).mean() + (1 - signature_cosine).mean()) + TOKEN * tokens
    loss = loss + balance.log().abs().mean()
    right = (logits.argmax(-1) == first_NW).float().mean(0)
    figures = {
        "loss": loss.item(),
        "words": word_cosine.mean().item(),
        "signatures": signature_cosine.mean().item(),
        **{f"slot_{n}": r.item() for n, r in enumerate(right, start=1)},
    }
    return loss, figures
