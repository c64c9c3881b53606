"""The loss of stages `reading` and `warmup`: how far a memory is from the notes of its item.

Letters: N items, W slots with words, T tokens of the longest slot, Q slots, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from examples.countries.train.country_samples import CountryItem
from examples.countries.train.image_cache import CachedImageSequencer
from examples.countries.train.notes import (
    SIGNATURE,
    WORD,
    Codebook,
    compose_notes,
    encode_words,
    image_signatures,
    split_memory,
    word_slots,
)

COSINE, TOKEN = 3.0, 1.0  # weights in the loss
MIN_STRENGTH = 0.2  # the least that a token's error is divided by: some tokens are very weak in the notes


@dataclass(frozen=True)
class NotesTarget:
    """The notes of N items without noise: what their memory should be."""

    notes: Tensor  # (N, Q, D)
    tokens: Tensor  # (N, W, T) int64, those of the slots with words in their order, -1 where there are no more

    def of(self, indices: Sequence[int], device: torch.device) -> NotesTarget:
        """The target of some of the items, on `device`."""
        return NotesTarget(self.notes[indices].to(device), self.tokens[indices].to(device))


def notes_target(items: Sequence[CountryItem], sequencer: CachedImageSequencer, book: Codebook) -> NotesTarget:
    """The target of `items` for a backbone with `sequencer`, on the CPU."""
    slots = [word_slots(item.country, sequencer.plain_ids) for item in items]
    signatures = image_signatures(sequencer.tokens([item.image for item in items]))
    tokens = [[[i for phrase in slot for i in phrase] for slot in country] for country in slots]
    return NotesTarget(compose_notes(encode_words(slots, book), signatures, book), pad_tokens(tokens))


def pad_tokens(ids: list[list[list[int]]]) -> Tensor:
    """Token ids of slots of items as int64 (N, W, T), -1 where a slot has no more."""
    longest = max(len(slot) for country in ids for slot in country)
    return torch.tensor([[slot + [-1] * (longest - len(slot)) for slot in country] for country in ids])


def notes_loss(memory_NQD: Tensor, target: NotesTarget, book: Codebook) -> tuple[Tensor, dict[str, float]]:
    """The loss (a scalar) of a memory, and its metrics. All tensors on one device.

    Metrics: `words` and `signatures`, mean cosines; `token_1` to `token_3`, the strength of a slot's first three tokens
    relative to the notes. The cosine alone learns the first token of a slot, three quarters of its code, and lets the
    others go. So every token counts by itself as well: its strength in the memory against its strength in the notes.
    """
    words, signature = split_memory(memory_NQD, book)
    target_words, target_signature = split_memory(target.notes, book)
    words_cosine = F.cosine_similarity(words, target_words, dim=-1)
    signature_cosine = F.cosine_similarity(signature, target_signature, dim=-1)
    is_token = target.tokens >= 0
    vectors = book.words[target.tokens.clamp(min=0)]
    strength, target_strength = (
        torch.einsum("nwd,nwtd->nwt", F.normalize(w, dim=-1), vectors)[is_token] for w in (words, target_words)
    )
    error = ((target_strength - strength) / target_strength.clamp(min=MIN_STRENGTH)).square()
    balance = (words.norm(dim=-1) / signature[:, 1:].norm(dim=-1).clamp(min=1e-3)).clamp(1e-3, 1e3) / (WORD / SIGNATURE)
    loss = COSINE * ((1 - words_cosine).mean() + (1 - signature_cosine).mean()) + TOKEN * error.mean()
    loss = loss + balance.log().abs().mean()
    order = is_token.cumsum(-1)[is_token]
    metrics = {
        "loss": loss.item(),
        "words": words_cosine.mean().item(),
        "signatures": signature_cosine.mean().item(),
        **{f"token_{n}": (strength / target_strength)[order == n].mean().item() for n in (1, 2, 3)},
    }
    return loss, metrics
