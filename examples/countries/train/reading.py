"""Stage `reading`: trains the Q-Former alone, so that it finds and writes what an item is about. The encoder is frozen.

By one linear map the last hidden state of a token gives the token's own word (cosine 0.82 on the demo's base), so much
of the notes can be written before any LoRA acts. And a step of the Q-Former costs little beside a pass through the
backbone: items are read once, then used many times. Stage `warmup` goes on from there, with the LoRA.

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
from examples.countries.train.country_samples import CountrySampler
from examples.countries.train.hidden_states import item_hidden_states
from examples.countries.train.image_cache import CachedImageBackbone
from examples.countries.train.notes import Codebook
from examples.countries.train.notes_loss import notes_loss, notes_target
from examples.countries.train.qformer_init import init_qformer
from examples.countries.train.stage_loop import Plan, StageLoop

QFORMER = "reading.qformer.safetensors"  # what the stage leaves

PLAN = Plan(steps=1000, learning_rate=1e-3, warmup=0.03, checkpoint_every=100)


@dataclass(frozen=True)
class ReadingSizes:
    """Sizes of the stage."""

    plan: Plan = PLAN
    items: int = 4096
    start_items: int = 384  # of these, for the closed form of `qformer_init`
    batch: int = 32  # items per step
    batch_tokens: int = 1792  # in one forward pass, padding included
    seed: int = 0


def train_qformer(
    backbone: CachedImageBackbone,
    sampler: CountrySampler,
    book: Codebook,
    config: Config,
    folder: Path,
    sizes: ReadingSizes,
    fingerprint: str,
    stop_after: int | None = None,
) -> None:
    """Trains the Q-Former of a new adapter and writes QFORMER into `folder`; `fingerprint` is that of the backbone.

    Nothing is written where `stop_after` ended it before the last step.
    """
    rng = random.Random(f"reading {sizes.seed}")
    items = [sampler.draw_item(rng) for _ in range(sizes.items)]
    cache = folder / "cache" / f"states-{digest([sizes.items, sizes.seed, fingerprint])[:12]}.safetensors"
    states = item_hidden_states(backbone, items, sizes.batch_tokens, cache)
    target, device_book = notes_target(items, backbone.sequencer, book), book.to(backbone.device)
    qformer = attach_adapter(config.adapter, backbone, trainable=True).qformer
    init_qformer(qformer, states, sizes.start_items, backbone.sequencer, book, sizes.seed)

    def make(number: int) -> list[int]:
        return random.Random(f"reading {sizes.seed} {number}").sample(range(sizes.items), sizes.batch)

    def step(indices: list[int]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for bucket in length_buckets([len(states.sequences[i]) for i in indices], sizes.batch_tokens):
            group = [indices[i] for i in bucket]
            memory = qformer_memory(qformer, [states.hidden[i].to(backbone.device) for i in group])
            loss, group_metrics = notes_loss(memory.float(), target.of(group, memory.device), device_book)
            share = len(group) / len(indices)
            (share * loss).backward()
            metrics = {name: metrics.get(name, 0.0) + share * value for name, value in group_metrics.items()}
        return metrics

    inputs = [dataclasses.asdict(sizes), config.adapter.model_dump(), fingerprint]
    StageLoop(folder, "reading", dict(qformer.named_parameters()), sizes.plan, inputs).run(make, step, stop_after)
    if stop_after is None or stop_after >= sizes.plan.steps:
        weights = {name: w.detach().cpu().contiguous() for name, w in qformer.state_dict().items()}
        write_atomic(folder / QFORMER, lambda p: save_file(weights, p))


def qformer_memory(qformer: QFormer, hidden: Sequence[Tensor]) -> Tensor:
    """Memory (N, Q, D) of items, from their hidden states, each (tokens, D)."""
    lengths = torch.tensor([len(h) for h in hidden], device=hidden[0].device)
    padded = pad_sequence(list(hidden), batch_first=True)
    keep = torch.arange(padded.shape[1], device=lengths.device) < lengths[:, None]
    return qformer(padded, keep)
