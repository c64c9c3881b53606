"""Stage `reading`: the Q-Former alone learns to find and to say what an item is about; its encoder has learned nothing.

By one linear map the last hidden state of a token tells the token's own word (cosine 0.82 on the demo's base), so much
of the notes can be written before any LoRA acts. And a step of the Q-Former costs little beside a pass through the
backbone: items are read once, then gone through many times. Stage `warmup` goes on from there, with the LoRA.

Letters: N items, L tokens of the longest, D width.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from comem_ray.artifacts import fingerprint as digest
from comem_ray.artifacts import write_atomic
from comem_ray.config import Config
from comem_ray.model.adapter import attach_adapter
from comem_ray.model.memory_encoder import length_buckets
from comem_ray.model.qformer import QFormer
from examples.countries.train.exact import exact_notes, notes_loss
from examples.countries.train.image_tokens import SeenBackbone
from examples.countries.train.lessons import Lessons
from examples.countries.train.notes import Codebook
from examples.countries.train.start import start_qformer
from examples.countries.train.states import states_of
from examples.countries.train.steps import Plan, Steps

READ = "reading.qformer.safetensors"

PLAN = Plan(steps=1000, learning_rate=1e-3, warmup=0.03, checkpoint_every=100)


@dataclass(frozen=True)
class Reading:
    """Sizes of the stage."""

    plan: Plan = PLAN
    items: int = 4096
    start_items: int = 384  # of these, for the closed form of `start`
    batch: int = 32  # items a step
    batch_tokens: int = 1792  # a forward pass, padding included
    seed: int = 0


def learn_to_read(
    backbone: SeenBackbone,
    lessons: Lessons,
    book: Codebook,
    config: Config,
    folder: Path,
    sizes: Reading,
    fingerprint: str,
    stop_after: int | None = None,
) -> None:
    """Trains the Q-Former of a new adapter and writes READ into `folder`; `fingerprint` is that of the backbone.

    Nothing is written where `stop_after` ended it before the last step.
    """
    rng = random.Random(f"reading {sizes.seed}")
    drawn = [lessons.item(rng) for _ in range(sizes.items)]
    kept = folder / "cache" / f"states-{digest([sizes.items, sizes.seed, fingerprint])[:12]}.safetensors"
    states = states_of(backbone, drawn, sizes.batch_tokens, kept)
    exact, near = exact_notes(drawn, backbone.sequencer, book), book.to(backbone.device)
    qformer = attach_adapter(config.adapter, backbone, trainable=True).qformer
    start_qformer(qformer, states, sizes.start_items, backbone.sequencer, book, sizes.seed)

    def make(number: int) -> list[int]:
        return random.Random(f"reading {sizes.seed} {number}").sample(range(sizes.items), sizes.batch)

    def step(places: list[int]) -> dict[str, float]:
        figures: dict[str, float] = {}
        for group in length_buckets([len(states.sequences[i]) for i in places], sizes.batch_tokens):
            some = [places[i] for i in group]
            memory = _memory(qformer, [states.hidden[i].to(backbone.device) for i in some])
            loss, said = notes_loss(memory.float(), exact.of(some, memory.device), near)
            share = len(some) / len(places)
            (share * loss).backward()
            figures = {name: figures.get(name, 0.0) + share * value for name, value in said.items()}
        return figures

    made_of = [dataclasses.asdict(sizes), config.adapter.model_dump(), fingerprint]
    Steps(folder, "reading", dict(qformer.named_parameters()), sizes.plan, made_of).run(make, step, stop_after)
    if stop_after is None or stop_after >= sizes.plan.steps:
        weights = {name: w.detach().cpu().contiguous() for name, w in qformer.state_dict().items()}
        write_atomic(folder / READ, lambda p: save_file(weights, p))


def _memory(qformer: QFormer, hidden: Sequence[Tensor]) -> Tensor:
    """Memory (N, Q, D) of items whose hidden states (L, D) are given."""
    lengths = torch.tensor([len(h) for h in hidden], device=hidden[0].device)
    padded = pad_sequence(list(hidden), batch_first=True)
    keep = torch.arange(padded.shape[1], device=lengths.device) < lengths[:, None]
    return qformer(padded, keep)
