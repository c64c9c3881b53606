"""Stage `warmup`: the adapter learns to write the notes that the base has learned to read.

The base is frozen. The encoder (LoRA on) and the Q-Former read an item and give its memory, which is compared with the
item's exact notes: the direction of the words and that of the signature apart, by the cosine; the loudness of every
token of a slot; the balance of words and signature. The LoRA of the
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

from comem_ray.artifacts import fingerprint as digest
from comem_ray.config import Config, resolve
from comem_ray.demo.countries import Country
from comem_ray.demo.model.compiled import compile_layers
from comem_ray.demo.model.lessons import Lessons
from comem_ray.demo.model.notes import SIGNATURE, WORD, Codebook, notes, parts, signatures, slots, word_codes
from comem_ray.demo.model.pictures import SeenBackbone, SeenSequencer
from comem_ray.demo.model.start import ITEMS, start_qformer
from comem_ray.demo.model.steps import Plan, Steps
from comem_ray.model.adapter import adapter_files, attach_adapter, save_adapter
from comem_ray.model.lora import switched_on
from comem_ray.model.memory_encoder import MemoryEncoder, length_buckets
from comem_ray.model.sequences import TokenSequence
from comem_ray.training.loop import trainable_parameters

COSINE, TOKEN = 3.0, 1.0  # weights in the loss
MIN_LOUD = 0.2  # the least that a token's miss is measured against: some are all but silent in the notes
ADAPTER = "adapter"

PLAN = Plan(steps=240, learning_rate=7e-4, checkpoint_every=25)


@dataclass(frozen=True)
class Warmup:
    """Sizes of the stage."""

    plan: Plan = PLAN
    batch: int = 32  # items a step
    batch_tokens: int = 1792  # a forward pass, padding included: short texts beside short ones
    compile: bool = True
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
    workers: int = 0,
) -> None:
    """Trains an adapter on `backbone`, whose checkpoint has that `fingerprint`, and writes it to `folder`/adapter.

    It goes on from `config.adapter.path`, on other items than those it was made with; a new one's Q-Former starts as
    `start` has it. Items are made by `workers` other processes. Nothing is written where `stop_after` ended it before
    the last step.
    """
    adapter = attach_adapter(config.adapter, backbone, trainable=True)
    encoder = MemoryEncoder(config, backbone=backbone, adapter=adapter)
    if config.adapter.path is None:
        start_qformer(encoder, lessons, book, sizes.seed, sizes.start_items)
    if sizes.compile:
        compile_layers(backbone.model)
    parameters = trainable_parameters(adapter)
    drawn_by = _draws(sizes, config.adapter.path)
    near = book.to(backbone.device)

    def make(number: int) -> _Items:
        rng = random.Random(f"{drawn_by} {number}")
        return _items(encoder, book, [lessons.item(rng) for _ in range(sizes.batch)])

    sized = dataclasses.asdict(dataclasses.replace(sizes, compile=False))
    made_of = [sized, config.adapter.model_dump(), drawn_by, fingerprint]
    steps = Steps(folder, "warmup", parameters, sizes.plan, made_of)
    steps.run(make, lambda items: _backward(encoder, near, items, sizes.batch_tokens), stop_after, workers)
    if stop_after is None or stop_after >= sizes.plan.steps:
        (folder / ADAPTER).mkdir(parents=True, exist_ok=True)
        save_adapter(folder / ADAPTER, adapter, fingerprint)


def _draws(sizes: Warmup, given: str | None) -> str:
    """What the items of a warm-up from the adapter folder `given` are drawn by, each adapter its own.

    A second round from what the first left would otherwise see the first round's items again.
    """
    start = [digest(adapter_files(resolve(given)))] if given else []
    return " ".join(["warmup", str(sizes.seed), *start])


@dataclass(frozen=True)
class _Items:
    """Items to encode, and what their memory should be. On the CPU."""

    sequences: list[TokenSequence]
    notes: Tensor  # (N, Q, D)
    tokens: Tensor  # (N, W, T) int64, those of the slots with words in their order, -1 where there are no more


def _items(encoder: MemoryEncoder, book: Codebook, items: list[tuple[Country, str, Any]]) -> _Items:
    """Of items (country, text, picture as `Seen`)."""
    sequencer = encoder.backbone.sequencer
    assert isinstance(sequencer, SeenSequencer)
    held = [slots(country, sequencer.plain_ids) for country, _, _ in items]
    signed = signatures(sequencer.tokens([seen for _, _, seen in items]))
    return _Items(
        [encoder.sequence(text, seen) for _, text, seen in items],
        notes(word_codes(held, book), signed, book),
        _padded([[[i for phrase in slot for i in phrase] for slot in country] for country in held]),
    )


def _padded(ids: list[list[list[int]]]) -> Tensor:
    longest = max(len(slot) for country in ids for slot in country)
    return torch.tensor([[slot + [-1] * (longest - len(slot)) for slot in country] for country in ids])


def _backward(encoder: MemoryEncoder, book: Codebook, items: _Items, batch_tokens: int) -> dict[str, float]:
    """Gradients of the loss of `items`, on the adapter's parameters. `book` is on the encoder's device.

    Items of like length go together: padded to the longest of all, most of a batch would be padding.
    """
    figures: dict[str, float] = {}
    for group in length_buckets([len(s) for s in items.sequences], batch_tokens):
        share = len(group) / len(items.sequences)
        memory = encoder.forward([items.sequences[i] for i in group])
        exact, tokens = items.notes[group].to(memory.device), items.tokens[group].to(memory.device)
        loss, some = notes_loss(memory.float(), exact, tokens, book)
        with switched_on(encoder.adapter.lora):  # switched off, its parameters take no gradient
            (share * loss).backward()
        figures = {name: figures.get(name, 0.0) + share * value for name, value in some.items()}
    return figures


def notes_loss(
    memory_NQD: Tensor, notes_NQD: Tensor, tokens_NWT: Tensor, book: Codebook
) -> tuple[Tensor, dict[str, float]]:
    """How far a memory is from the exact notes; `tokens_NWT` are the tokens of the slots with words, -1 for none.

    The cosine alone learns the first token of a slot, three quarters of its code, and lets the others go. So every
    token counts by itself as well: how loud it is in the memory, against how loud it is in the notes.
    """
    words, signed = parts(memory_NQD, book)
    exact_words, exact_signed = parts(notes_NQD, book)
    words_cosine = F.cosine_similarity(words, exact_words, dim=-1)
    signature_cosine = F.cosine_similarity(signed, exact_signed, dim=-1)
    said = tokens_NWT >= 0
    vectors = book.words[tokens_NWT.clamp(min=0)]
    loud, exact_loud = (
        torch.einsum("nwd,nwtd->nwt", F.normalize(w, dim=-1), vectors)[said] for w in (words, exact_words)
    )
    missed = ((exact_loud - loud) / exact_loud.clamp(min=MIN_LOUD)).square()
    balance = (words.norm(dim=-1) / signed[:, 1:].norm(dim=-1).clamp(min=1e-3)).clamp(1e-3, 1e3) / (WORD / SIGNATURE)
    loss = COSINE * ((1 - words_cosine).mean() + (1 - signature_cosine).mean()) + TOKEN * missed.mean()
    loss = loss + balance.log().abs().mean()
    order = said.cumsum(-1)[said]
    figures = {
        "loss": loss.item(),
        "words": words_cosine.mean().item(),
        "signatures": signature_cosine.mean().item(),
        **{f"token_{n}": (loud / exact_loud)[order == n].mean().item() for n in (1, 2, 3)},
    }
    return loss, figures
