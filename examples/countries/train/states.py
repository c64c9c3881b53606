"""Hidden states of items, read once by the frozen backbone and kept: what learns from them costs no pass through it.

Letters: L tokens of an item, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from comem_ray.artifacts import write_atomic
from comem_ray.model.memory_encoder import length_buckets
from comem_ray.model.sequences import TokenSequence
from comem_ray.prompts import item_turn
from examples.countries.train.image_tokens import SeenBackbone
from examples.countries.train.lessons import Item


@dataclass(frozen=True)
class States:
    """Items, the sequence that the encoder reads of each, and its hidden states (L, D) after the final norm, CPU."""

    items: Sequence[Item]
    sequences: Sequence[TokenSequence]
    hidden: Sequence[Tensor]


def states_of(backbone: SeenBackbone, items: Sequence[Item], batch_tokens: int, path: Path) -> States:
    """The states of `items`, without any adapter; read from `path` where they are there, else written to it."""
    sequences = [backbone.sequencer.sequence(item_turn(text, seen)) for _, text, seen in items]
    if not path.exists():
        hidden = _read(backbone, sequences, batch_tokens)
        write_atomic(path, lambda p: save_file({"hidden": torch.cat(hidden)}, p))
    together = load_file(path)["hidden"]
    return States(items, sequences, together.split([len(s) for s in sequences]))


@torch.no_grad()
def _read(backbone: SeenBackbone, sequences: Sequence[TokenSequence], batch_tokens: int) -> list[Tensor]:
    hidden = [torch.empty(0)] * len(sequences)
    for group in length_buckets([len(s) for s in sequences], batch_tokens):
        batch = backbone.sequencer.batch([sequences[i] for i in group], padding="right")
        states = backbone.hidden_states(batch, backbone.embed(batch, backbone.image_features(batch)))
        for i, row in zip(group, states.cpu(), strict=True):
            hidden[i] = row[: len(sequences[i])].clone()
    return hidden
