"""Notes: what the memory of a country could be, computed from word embeddings and the image, without an encoder.

The base learns to read notes, the adapter to write them. They bridge the gap between "no memory at all" and the
paper's objective, which alone would take far longer to carry anything. Notes have eight slots, as a memory has:

    0 the image alone   1 name, first token   2 name, the others   3, 4 capital, first and second token
    5 capital, the others   6 currency   7 language and region

The *word code* of a slot is the sum of its tokens' vectors, each 0.6 times as strong as the one before. The vectors are
word embeddings, centred (they share a big mean), without their part in the subspace of image tokens. The *signature* of
an image is the unit mean of its tokens. A slot is mean + 12 x word code + 14 x signature: every slot names its image,
so a question's image leads to the fact in one hop. Slot 0 has the signature alone, at the same norm.

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
EMPTY = "."  # the text of a slot that has no token

Tokenize = Callable[[str], list[int]]
Slot = tuple[tuple[int, ...], ...]
"""The phrases of a slot, each the ids of its tokens."""


@dataclass(frozen=True)
class Codebook:
    """The vectors that notes are made of."""

    mean: Tensor  # (D) of the word embeddings
    words: Tensor  # (vocabulary, D), unit length, orthogonal to the image subspace
    subspace: Tensor  # (D, k), orthonormal columns

    def to(self, device: torch.device) -> Codebook:
        """The same vectors on `device`."""
        return Codebook(self.mean.to(device), self.words.to(device), self.subspace.to(device))


def codebook(embeddings: Tensor, subspace: Tensor) -> Codebook:
    """From the word embeddings (vocabulary, D) and orthonormal columns (D, k) that span the image tokens."""
    mean = embeddings.float().mean(0)
    words = normalize(embeddings.float() - mean, dim=-1)
    return Codebook(mean, normalize(orthogonal_part(words, subspace), dim=-1), subspace)


def orthogonal_part(vectors: Tensor, subspace: Tensor) -> Tensor:
    """The part of vectors (..., D) that is orthogonal to the columns of `subspace` (D, k)."""
    return vectors - (vectors @ subspace) @ subspace.T


def word_slots(country: Country, tokenize: Tokenize) -> list[Slot]:
    """The phrases of slots 1 to 7 of a complete country."""
    assert country.complete, country.name
    assert country.currency is not None
    name, capital = tokenize(f" {country.name}"), tokenize(f" {country.capital}")
    phrases: list[list[list[int]]] = [
        [name[:1]],
        [name[1:]],
        [capital[:1]],
        [capital[1:2]],
        [capital[2:]],
        [tokenize(f" {country.currency.word}")],
        [tokenize(f" {country.languages[0]}"), tokenize(f" {country.area}")],
    ]
    return [tuple(tuple(p or tokenize(EMPTY)) for p in slot) for slot in phrases]


def encode_words(countries: Sequence[Sequence[Slot]], book: Codebook) -> Tensor:
    """The word codes (N, W, D), unit length, of the slots of N countries."""
    return torch.stack([torch.stack([_word_code(slot, book) for slot in country]) for country in countries])


def _word_code(slot: Slot, book: Codebook) -> Tensor:
    ids = torch.tensor([i for phrase in slot for i in phrase])
    strength = torch.tensor([FADING**n for phrase in slot for n in range(len(phrase))])
    return normalize(strength @ book.words[ids], dim=-1)


def image_signatures(tokens_NTD: Tensor) -> Tensor:
    """The signatures (N, D), unit length, of images, from their tokens (N, T, D)."""
    return normalize(tokens_NTD.float().mean(1), dim=-1)


def compose_notes(words_NWD: Tensor, signatures_ND: Tensor, book: Codebook) -> Tensor:
    """The notes (N, Q, D), float32, from word codes and signatures."""
    signature = signatures_ND[:, None]
    return book.mean + torch.cat([NORM * signature, WORD * words_NWD + SIGNATURE * signature], 1)


def add_noise(
    words_NWD: Tensor, signatures_ND: Tensor, book: Codebook, noise: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Word codes and signatures with noise, each within its own space, unit length again.

    The strength is drawn per country, up to `noise` (words, signatures) times their norm. What an adapter writes is
    never exact, and the base must read it.
    """
    count = len(signatures_ND)
    strength = torch.rand(2, count, 1, generator=generator)
    word_noise = torch.randn(words_NWD.shape, generator=generator)
    word_noise = normalize(orthogonal_part(word_noise, book.subspace), dim=-1)
    words = normalize(words_NWD + noise[0] * strength[0][..., None] * word_noise, dim=-1)
    image_noise = torch.randn(count, book.subspace.shape[1], generator=generator)
    image_noise = normalize(image_noise, dim=-1) @ book.subspace.T
    return words, normalize(signatures_ND + noise[1] * strength[1] * image_noise, dim=-1)


def split_memory(memory_NQD: Tensor, book: Codebook) -> tuple[Tensor, Tensor]:
    """The two parts of a memory: words (N, W, D) of the slots that have some, and signatures (N, Q, D)."""
    centred = memory_NQD.float() - book.mean
    signature = (centred @ book.subspace) @ book.subspace.T
    return (centred - signature)[:, 1:], signature


def decode_words(memory_NQD: Tensor, book: Codebook, count: int = 1) -> Tensor:
    """The `count` strongest tokens of each slot with words, int64 (N, W, count)."""
    words, _ = split_memory(memory_NQD, book)
    return (normalize(words, dim=-1) @ book.words.T).topk(count).indices
