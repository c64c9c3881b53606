"""The loss of a memory against its notes."""

import pytest
from support.toy_notes import tokenize, toy_codebook, toy_countries, toy_signatures

from examples.countries.train.notes import compose_notes, encode_words, word_slots
from examples.countries.train.notes_loss import NotesTarget, notes_loss, pad_tokens


def test_the_loss_is_zero_at_the_notes_and_counts_a_lost_token() -> None:
    book, countries = toy_codebook(), toy_countries()
    signatures = toy_signatures(book)
    slots = [word_slots(c, tokenize) for c in countries]
    tokens = pad_tokens([[[i for phrase in slot for i in phrase] for slot in country] for country in slots])
    notes = compose_notes(encode_words(slots, book), signatures, book)
    target = NotesTarget(notes, tokens)
    loss, metrics = notes_loss(notes, target, book)
    assert loss.abs() < 1e-4
    for name in ("words", "signatures", "token_1", "token_2"):
        assert metrics[name] == pytest.approx(1, abs=1e-4)
    first_tokens = [[tuple(phrase[:1] for phrase in slot) for slot in country] for country in slots]
    worse, metrics = notes_loss(compose_notes(encode_words(first_tokens, book), signatures, book), target, book)
    assert metrics["token_2"] < 0.6 < metrics["token_1"]
    assert worse > 3 * (1 - metrics["words"])  # more than the cosine alone would give
