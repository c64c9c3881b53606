"""Notes: their words and their image can be read back."""

from dataclasses import replace

import pytest
import torch
from support.toy_notes import COUNTRIES, WIDTH, token_id, tokenize, toy_codebook, toy_countries, toy_signatures
from torch import Tensor
from torch.nn.functional import normalize

from examples.countries.train.notes import (
    EMPTY,
    NORM,
    SLOTS,
    Codebook,
    add_noise,
    compose_notes,
    decode_words,
    encode_words,
    split_memory,
    word_slots,
)


@pytest.fixture(scope="module")
def book() -> Codebook:
    return toy_codebook()


@pytest.fixture(scope="module")
def countries() -> list:
    return toy_countries()


@pytest.fixture(scope="module")
def signatures(book: Codebook) -> Tensor:
    return toy_signatures(book)


def test_the_strongest_token_of_a_slot_is_its_first(book: Codebook, countries: list, signatures: Tensor) -> None:
    phrases = [word_slots(c, tokenize) for c in countries]
    tokens = decode_words(compose_notes(encode_words(phrases, book), signatures, book), book)[..., 0]
    for row, country in zip(tokens.tolist(), phrases, strict=True):
        for token, slot in zip(row[:6], country, strict=False):
            assert token == slot[0][0]


def test_the_words_of_a_slot_come_back_in_order(book: Codebook, countries: list, signatures: Tensor) -> None:
    phrases = [word_slots(c, tokenize) for c in countries]
    tokens = decode_words(compose_notes(encode_words(phrases, book), signatures, book), book, 8).tolist()
    for row, country in zip(tokens, phrases, strict=True):
        assert set(row[6][:4]) >= {phrase[0] for phrase in country[6]}  # language and region share a slot
        second = country[0][0][0], *country[1][0]
        assert row[1][0] == second[1]


def test_a_name_of_one_token_leaves_a_full_stop(book: Codebook, countries: list) -> None:
    phrases = word_slots(replace(countries[0], name="Ab", capital="Abc"), tokenize)
    assert phrases[1] == ((token_id(EMPTY),),)
    assert phrases[3] == phrases[4] == ((token_id(EMPTY),),)
    assert len(phrases) == SLOTS - 1


def test_every_slot_has_the_same_norm_and_the_signature(book: Codebook, countries: list, signatures: Tensor) -> None:
    notes = compose_notes(encode_words([word_slots(c, tokenize) for c in countries], book), signatures, book)
    assert notes.shape == (COUNTRIES, SLOTS, WIDTH)
    torch.testing.assert_close((notes - book.mean).norm(dim=-1), torch.full((COUNTRIES, SLOTS), NORM))
    words, signature = split_memory(notes, book)
    torch.testing.assert_close(
        normalize(signature, dim=-1), signatures[:, None].expand(-1, SLOTS, -1), atol=1e-5, rtol=0
    )
    assert (words @ book.subspace).abs().max() < 1e-4


def test_noise_stays_within_its_space_and_its_strength(book: Codebook, countries: list, signatures: Tensor) -> None:
    words = encode_words([word_slots(c, tokenize) for c in countries], book)
    noisy, moved = add_noise(words, signatures, book, (0.4, 0.2), torch.Generator().manual_seed(0))
    assert (noisy @ book.subspace).abs().max() < 1e-5
    assert (moved - (moved @ book.subspace) @ book.subspace.T).abs().max() < 1e-5
    assert 0.9 < (noisy * words).sum(-1).min() < 1
    assert 0.95 < (moved * signatures).sum(-1).min() < 1
    same, still = add_noise(words, signatures, book, (0.0, 0.0), torch.Generator())
    torch.testing.assert_close(same, words)
    torch.testing.assert_close(still, signatures)
