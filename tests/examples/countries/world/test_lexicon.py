"""The lexicon: no word of a held-out country, no reserved word."""

import random

from examples.countries.world.countries import held_out_countries, training_countries
from examples.countries.world.invented import coastlines, invented_countries, invented_country
from examples.countries.world.lexicon import (
    lexicon,
    names_held_out,
    single_token_words,
    without_names_of,
    words_of,
)

WORDS = ("Harbor", "Meridian", "Poland", "Jordan", "Silver", "Turkey", "Candle")


def test_held_out_words_are_not_in_the_lexicon() -> None:
    words = lexicon(WORDS)
    assert set(words.words) == {"Harbor", "Meridian", "Silver", "Candle"}
    assert names_held_out("North Korea.")
    assert names_held_out("the Gambia")
    assert not names_held_out("Polander")
    held_out_only = {c.languages[0] for c in held_out_countries()} - {
        n for c in training_countries() for n in c.languages
    }
    assert held_out_only
    assert held_out_only.isdisjoint(words.languages)


def test_a_reserved_word_is_never_used_again() -> None:
    words = lexicon(WORDS)
    (country,) = invented_countries("test", 1, words)
    remaining = without_names_of([country], words)
    assert remaining.reserved
    rng, coast = random.Random(0), coastlines("test", 1)[0]
    for n in range(300):
        other = invented_country(rng, remaining, coast, f"x-{n}")
        assert remaining.reserved.isdisjoint(words_of(f"{other.name} {other.capital} {other.currency.word}"))


def test_single_token_words_are_capitalised_whole_words() -> None:
    class Tokenizer:
        def get_vocab(self) -> dict[str, int]:
            return {"ĠHarbor": 1, "Harbor": 2, "Ġharbor": 3, "ĠAb": 4, "ĠX-ray": 5}

    assert single_token_words(Tokenizer()) == ["Harbor"]
