"""The exact notes of items, and how far a memory is from them.

Letters: N items, W slots with words, T tokens of the longest slot, Q slots, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from examples.countries.train.image_tokens import SeenSequencer
from examples.countries.train.lessons import Item
from examples.countries.train.notes import SIGNATURE, WORD, Codebook, notes, parts, signatures, slots, word_codes

COSINE, TOKEN = 3.0, 1.0  # weights in the loss
MIN_LOUD = 0.2  # the least that a token's miss is measured against: some are all but silent in the notes


@dataclass(frozen=True)
class Exact:
    """The exact notes of items. On the CPU."""

    notes: Tensor  # (N, Q, D)
    tokens: Tensor  # (N, W, T) int64, those of the slots with words in their order, -1 where there are no more

    def of(self, places: Sequence[int], device: torch.device) -> Exact:
        """Those of some of the items, on a device."""
        return Exact(self.notes[places].to(device), self.tokens[places].to(device))


def exact_notes(items: Sequence[Item], sequencer: SeenSequencer, book: Codebook) -> Exact:
    """Of items that the backbone of `sequencer` reads."""
    held = [slots(country, sequencer.plain_ids) for country, _, _ in items]
    signed = signatures(sequencer.tokens([seen for _, _, seen in items]))
    tokens = [[[i for phrase in slot for i in phrase] for slot in country] for country in held]
    return Exact(notes(word_codes(held, book), signed, book), _padded(tokens))


def _padded(ids: list[list[list[int]]]) -> Tensor:
    longest = max(len(slot) for country in ids for slot in country)
    return torch.tensor([[slot + [-1] * (longest - len(slot)) for slot in country] for country in ids])


def notes_loss(memory_NQD: Tensor, exact: Exact, book: Codebook) -> tuple[Tensor, dict[str, float]]:
    """How far a memory is from the exact notes, and figures of that. All on one device.

    The cosine alone learns the first token of a slot, three quarters of its code, and lets the others go. So every
    token counts by itself as well: how loud it is in the memory, against how loud it is in the notes.
    """
    words, signed = parts(memory_NQD, book)
    exact_words, exact_signed = parts(exact.notes, book)
    words_cosine = F.cosine_similarity(words, exact_words, dim=-1)
    signature_cosine = F.cosine_similarity(signed, exact_signed, dim=-1)
    said = exact.tokens >= 0
    vectors = book.words[exact.tokens.clamp(min=0)]
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
