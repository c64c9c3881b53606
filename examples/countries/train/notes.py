"""The exact notes of a country: what its memory could be, written straight from word embeddings.

The base learns to read such notes, the adapter to write them: the bridge between "no memory at all" and the paper's
objective, which alone would take far longer to carry anything. Eight slots:

    0 the image alone   1 name, first token   2 name, the others   3, 4 capital, first and second token
    5 capital, the others   6 currency   7 language and region

A word code is the sum of its tokens' vectors, each 0.6 times as strong as the one before; the vectors are centred word
embeddings (they share a big mean), off the subspace that image tokens live in. A slot is mean + 12 x word code + 14
x signature, the signature being the unit mean of the image's tokens: every slot says which image it belongs to, so
a question's image leads to the fact in one hop. Slot 0 has the signature alone, at the same norm.

Letters: N countries, W slots with words (7), Q slots (8), D width, k dimensions of the image subspace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from examples.countries.world.countries import Country

SLOTS = 8
WORD, SIGNATURE = 12.0, 14.0
NORM = (WORD**2 + SIGNATURE**2) ** 0.5  # of every slot, less the mean
FADING = 0.6
EMPTY = "."  # what a slot without a token holds

Ids = Callable[[str], list[int]]
Slot = tuple[tuple[int, ...], ...]
"""The phrases of a slot, each the ids of its tokens."""


@dataclass(frozen=True)
class Codebook:
    """The vectors that notes are made of."""

    mean: Tensor  # (D) of the word embeddings
    words: Tensor  # (vocabulary, D), unit length, off the image subspace
    subspace: Tensor  # (D, k), orthonormal columns

    def to(self, device: torch.device) -> Codebook:
        """The same vectors on `device`."""
        return Codebook(self.mean.to(device), self.words.to(device), self.subspace.to(device))


def codebook(embeddings: Tensor, subspace: Tensor) -> Codebook:
    """From the word embeddings (vocabulary, D) and the columns (D, k) that image tokens live in."""
    mean = embeddings.float().mean(0)
    words = normalize(embeddings.float() - mean, dim=-1)
    return Codebook(mean, normalize(off(words, subspace), dim=-1), subspace)


def off(vectors: Tensor, subspace: Tensor) -> Tensor:
    """The part of vectors (..., D) that is orthogonal to the subspace."""
    return vectors - (vectors @ subspace) @ subspace.T


def slots(country: Country, ids: Ids) -> list[Slot]:
    """What the slots 1 to 7 of a complete country hold; `ids` tokenises text."""
    assert country.complete, country.name
    assert country.currency is not None
    name, capital = ids(f" {country.name}"), ids(f" {country.capital}")
    phrases: list[list[list[int]]] = [
        [name[:1]],
        [name[1:]],
        [capital[:1]],
        [capital[1:2]],
        [capital[2:]],
        [ids(f" {country.currency.word}")],
        [ids(f" {country.languages[0]}"), ids(f" {country.area}")],
    ]
    return [tuple(tuple(p or ids(EMPTY)) for p in slot) for slot in phrases]


def word_codes(countries: Sequence[Sequence[Slot]], book: Codebook) -> Tensor:
    """Unit vectors (N, W, D) of the slots of N countries."""
    return torch.stack([torch.stack([_code(slot, book) for slot in country]) for country in countries])


def _code(slot: Slot, book: Codebook) -> Tensor:
    ids = torch.tensor([i for phrase in slot for i in phrase])
    strength = torch.tensor([FADING**n for phrase in slot for n in range(len(phrase))])
    return normalize(strength @ book.words[ids], dim=-1)


def signatures(tokens_NTD: Tensor) -> Tensor:
    """Unit vectors (N, D) of images, from their tokens (N, T, D)."""
    return normalize(tokens_NTD.float().mean(1), dim=-1)


def notes(words_NWD: Tensor, signatures_ND: Tensor, book: Codebook) -> Tensor:
    """The notes (N, Q, D), float32."""
    signature = signatures_ND[:, None]
    return book.mean + torch.cat([NORM * signature, WORD * words_NWD + SIGNATURE * signature], 1)


def disturbed(
    words_NWD: Tensor, signatures_ND: Tensor, book: Codebook, noise: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Both with noise of a random strength up to `noise` (words, signatures) times their norm, each within its space.

    So that the base reads what an adapter will write, which is never exact.
    """
    count = len(signatures_ND)
    strength = torch.rand(2, count, 1, generator=generator)
    blur = normalize(off(torch.randn(words_NWD.shape, generator=generator), book.subspace), dim=-1)
    words = normalize(words_NWD + noise[0] * strength[0][..., None] * blur, dim=-1)
    shift = normalize(torch.randn(count, book.subspace.shape[1], generator=generator), dim=-1) @ book.subspace.T
    return words, normalize(signatures_ND + noise[1] * strength[1] * shift, dim=-1)


def parts(memory_NQD: Tensor, book: Codebook) -> tuple[Tensor, Tensor]:
    """Memory taken apart: words (N, W, D) of the slots that have some, and signatures (N, Q, D)."""
    centred = memory_NQD.float() - book.mean
    signature = (centred @ book.subspace) @ book.subspace.T
    return (centred - signature)[:, 1:], signature


def decoded(memory_NQD: Tensor, book: Codebook, count: int = 1) -> Tensor:
    """The `count` tokens that each slot with words says loudest, int64 (N, W, count)."""
    words, _ = parts(memory_NQD, book)
    return (normalize(words, dim=-1) @ book.words.T).topk(count).indices
