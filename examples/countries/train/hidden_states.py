"""A cache of items' hidden states: the frozen backbone reads each item once, and stage `reading` learns from the cache.

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
from examples.countries.train.country_samples import CountryItem
from examples.countries.train.image_cache import CachedImageBackbone


@dataclass(frozen=True)
class ItemHiddenStates:
    """Items, the sequence that the encoder reads of each, and its hidden states (L, D) after the final norm, CPU."""

    items: Sequence[CountryItem]
    sequences: Sequence[TokenSequence]
    hidden: Sequence[Tensor]


def item_hidden_states(
    backbone: CachedImageBackbone, items: Sequence[CountryItem], batch_tokens: int, path: Path
) -> ItemHiddenStates:
    """The hidden states of `items`, without any adapter; read from `path`, first written where missing.

    `batch_tokens` is the most tokens of one forward pass, padding included.
    """
    sequences = [backbone.sequencer.sequence(item_turn(text, image)) for _, text, image in items]
    if not path.exists():
        hidden = _forward(backbone, sequences, batch_tokens)
        write_atomic(path, lambda p: save_file({"hidden": torch.cat(hidden)}, p))
    concatenated = load_file(path)["hidden"]
    return ItemHiddenStates(items, sequences, concatenated.split([len(s) for s in sequences]))


@torch.no_grad()
def _forward(backbone: CachedImageBackbone, sequences: Sequence[TokenSequence], batch_tokens: int) -> list[Tensor]:
    hidden = [torch.empty(0)] * len(sequences)
    for group in length_buckets([len(s) for s in sequences], batch_tokens):
        batch = backbone.sequencer.batch([sequences[i] for i in group], padding="right")
        states = backbone.hidden_states(batch, backbone.embed(batch, backbone.image_features(batch)))
        for i, row in zip(group, states.cpu(), strict=True):
            hidden[i] = row[: len(sequences[i])].clone()
    return hidden
