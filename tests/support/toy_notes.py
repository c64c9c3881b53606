"""A small vocabulary, codebook and set of invented countries, for the tests of notes and of their loss."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from examples.countries.train.discriminant import leading_directions
from examples.countries.train.notes import Codebook, codebook, image_signatures
from examples.countries.world.countries import Country
from examples.countries.world.invented import coastlines, invented_country
from examples.countries.world.lexicon import lexicon

WIDTH, VOCABULARY, DIRECTIONS, COUNTRIES = 256, 500, 12, 20


def tokenize(text: str) -> list[int]:
    """One token per word, two for a long one."""
    return [token_id(piece) for word in text.split() for piece in ([word[:5], word[5:]] if len(word) > 5 else [word])]


def token_id(piece: str) -> int:
    """The id of a piece of a word, the same on every machine."""
    return sum(ord(c) * 31**n for n, c in enumerate(piece)) % VOCABULARY


def toy_codebook() -> Codebook:
    """The codebook of random word embeddings with a common mean."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(VOCABULARY, WIDTH, generator=generator) + 2 * torch.randn(WIDTH, generator=generator)
    return codebook(embeddings, leading_directions(embeddings, DIRECTIONS))


def toy_countries() -> list[Country]:
    """COUNTRIES invented countries."""
    rng, words, coast = random.Random(3), lexicon(), coastlines("test", 1)[0]
    return [invented_country(rng, words, coast, str(n)) for n in range(COUNTRIES)]


def toy_signatures(book: Codebook) -> Tensor:
    """Random signatures (COUNTRIES, WIDTH) in the image subspace of `book`."""
    generator = torch.Generator().manual_seed(1)
    return image_signatures(torch.randn(COUNTRIES, 12, DIRECTIONS, generator=generator) @ book.subspace.T)
