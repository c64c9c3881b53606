"""Notes say what they were made from, and which image they belong to."""

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from examples.countries.train.discriminant import leading_directions
from examples.countries.train.exact import Exact, _padded, notes_loss
from examples.countries.train.notes import (
    EMPTY,
    NORM,
    SLOTS,
    Codebook,
    codebook,
    decoded,
    disturbed,
    notes,
    parts,
    signatures,
    slots,
    word_codes,
)
from examples.countries.world.invented import coasts, invented_country, lexicon

WIDTH, VOCABULARY, DIRECTIONS = 256, 500, 12


def ids(text: str) -> list[int]:
    """A token a word, or two where it is long."""
    return [hash_of(piece) for word in text.split() for piece in ([word[:5], word[5:]] if len(word) > 5 else [word])]


def hash_of(piece: str) -> int:
    return sum(ord(c) * 31**n for n, c in enumerate(piece)) % VOCABULARY


@pytest.fixture(scope="module")
def book() -> Codebook:
    draw = torch.Generator().manual_seed(0)
    embeddings = torch.randn(VOCABULARY, WIDTH, generator=draw) + 2 * torch.randn(WIDTH, generator=draw)
    return codebook(embeddings, leading_directions(embeddings, DIRECTIONS))


@pytest.fixture(scope="module")
def countries() -> list:
    rng, every, coast = random.Random(3), lexicon(), coasts("test", 1)[0]
    return [invented_country(rng, every, coast, str(n)) for n in range(20)]


@pytest.fixture(scope="module")
def signed(book: Codebook) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randn(20, 12, DIRECTIONS, generator=draw) @ book.subspace.T
    return signatures(tokens)


def test_the_loudest_token_of_a_slot_is_its_first(book: Codebook, countries: list, signed: Tensor) -> None:
    held = [slots(c, ids) for c in countries]
    said = decoded(notes(word_codes(held, book), signed, book), book)[..., 0]
    for row, country in zip(said.tolist(), held, strict=True):
        for token, slot in zip(row[:6], country, strict=False):
            assert token == slot[0][0]


def test_the_words_of_a_slot_come_back_in_order(book: Codebook, countries: list, signed: Tensor) -> None:
    held = [slots(c, ids) for c in countries]
    said = decoded(notes(word_codes(held, book), signed, book), book, 8).tolist()
    for row, country in zip(said, held, strict=True):
        assert set(row[6][:4]) >= {phrase[0] for phrase in country[6]}  # language and region share a slot
        second = country[0][0][0], *country[1][0]
        assert row[1][0] == second[1]


def test_a_name_of_one_token_leaves_a_full_stop(book: Codebook, countries: list) -> None:
    held = slots(replace(countries[0], name="Ab", capital="Abc"), ids)
    assert held[1] == ((hash_of(EMPTY),),)
    assert held[3] == held[4] == ((hash_of(EMPTY),),)
    assert len(held) == SLOTS - 1


def test_every_slot_is_equally_loud_and_carries_the_signature(book: Codebook, countries: list, signed: Tensor) -> None:
    made = notes(word_codes([slots(c, ids) for c in countries], book), signed, book)
    assert made.shape == (20, SLOTS, WIDTH)
    torch.testing.assert_close((made - book.mean).norm(dim=-1), torch.full((20, SLOTS), NORM))
    words, signature = parts(made, book)
    torch.testing.assert_close(normalize(signature, dim=-1), signed[:, None].expand(-1, SLOTS, -1), atol=1e-5, rtol=0)
    assert (words @ book.subspace).abs().max() < 1e-4


def test_noise_stays_within_its_space_and_its_strength(book: Codebook, countries: list, signed: Tensor) -> None:
    words = word_codes([slots(c, ids) for c in countries], book)
    noisy, moved = disturbed(words, signed, book, (0.4, 0.2), torch.Generator().manual_seed(0))
    assert (noisy @ book.subspace).abs().max() < 1e-5
    assert (moved - (moved @ book.subspace) @ book.subspace.T).abs().max() < 1e-5
    assert 0.9 < (noisy * words).sum(-1).min() < 1
    assert 0.95 < (moved * signed).sum(-1).min() < 1
    same, still = disturbed(words, signed, book, (0.0, 0.0), torch.Generator())
    torch.testing.assert_close(same, words)
    torch.testing.assert_close(still, signed)


def test_the_loss_is_zero_at_the_exact_notes_and_counts_a_lost_token(
    book: Codebook, countries: list, signed: Tensor
) -> None:
    held = [slots(c, ids) for c in countries]
    tokens = _padded([[[i for phrase in slot for i in phrase] for slot in country] for country in held])
    exact = notes(word_codes(held, book), signed, book)
    loss, figures = notes_loss(exact, Exact(exact, tokens), book)
    assert loss.abs() < 1e-4
    for name in ("words", "signatures", "token_1", "token_2"):
        assert figures[name] == pytest.approx(1, abs=1e-4)
    firsts = [[tuple(phrase[:1] for phrase in slot) for slot in country] for country in held]
    worse, without = notes_loss(notes(word_codes(firsts, book), signed, book), Exact(exact, tokens), book)
    assert without["token_2"] < 0.6 < without["token_1"]
    assert worse > 3 * (1 - without["words"])  # more than the cosine alone would say
