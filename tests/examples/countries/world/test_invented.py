"""Invented countries: complete, seeded, in three sets that share nothing, without a word of what is held out."""

import random
import re
from itertools import pairwise

import pytest

from examples.countries.train.clip_data import item_text
from examples.countries.world.countries import held_out_countries, training_countries
from examples.countries.world.invented import (
    LAND_SEEDS,
    Lexicon,
    coasts,
    fixed_parts,
    invented_countries,
    invented_country,
    lexicon,
    names_held_out,
    single_token_words,
    training_lexicon,
    without_names_of,
)
from examples.countries.world.questions import FACTS, answer, sentence

WORDS = ("Harbor", "Meridian", "Poland", "Jordan", "Silver", "Turkey", "Candle")


@pytest.fixture(scope="module")
def training() -> Lexicon:
    return training_lexicon(WORDS, validation=30, test=30)


def some(training: Lexicon, count: int = 300) -> list:
    rng, coast = random.Random(0), coasts("test", 1)[0]
    return [invented_country(rng, training, coast, f"x-{n}") for n in range(count)]


def test_nothing_held_out_in_any_training_text(training: Lexicon) -> None:
    names = {name for c in held_out_countries() for name in (c.name, c.capital)}
    for country in some(training):
        told = [item_text(country, "en"), *(sentence(country, fact) for fact in FACTS)]
        for name in names:
            assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", " ".join(told)), (name, told)


def test_nothing_of_the_test_set_in_training_or_validation(training: Lexicon) -> None:
    fixed = fixed_parts(lexicon(WORDS), 30, 30)
    names = {name for part in fixed.values() for c in part for name in (c.name, c.capital)}
    assert not names & {name for c in some(training) for name in (c.name, c.capital, *c.provinces)}
    tested, validated = ({n for c in fixed[part] for n in (c.name, c.capital)} for part in ("test", "validation"))
    assert not tested & validated
    assert len(tested) == 60 == len(validated)


def test_held_out_words_are_not_in_the_lexicon(training: Lexicon) -> None:
    every = lexicon(WORDS)
    assert set(every.words) == {"Harbor", "Meridian", "Silver", "Candle"}
    assert names_held_out("North Korea.")
    assert names_held_out("the Gambia")
    assert not names_held_out("Polander")
    foreign = {c.languages[0] for c in held_out_countries()} - {n for c in training_countries() for n in c.languages}
    assert foreign
    assert foreign.isdisjoint(every.languages)


def test_a_reserved_word_is_never_used_again() -> None:
    every = lexicon(WORDS)
    (country,) = invented_countries("test", 1, every)
    left = without_names_of([country], every)
    assert left.reserved
    for other in some(left):
        assert left.reserved.isdisjoint(re.findall(r"[^\W_]+", f"{other.name} {other.capital} {other.currency.word}"))


def test_every_invented_country_can_be_asked_about(training: Lexicon) -> None:
    for country in some(training, 50):
        assert country.complete
        text = item_text(country, "en")
        assert text.startswith(f"{country.name}: This is {country.name}, a country in ")
        assert all(answer(country, fact) in text for fact in FACTS)
        assert all(answer(country, fact) in sentence(country, fact) for fact in FACTS)


def test_many_names_are_long(training: Lexicon) -> None:
    lengths = [len(c.capital) for c in some(training)]
    assert sum(length >= 12 for length in lengths) > 60
    assert sum(length <= 6 for length in lengths) > 20


def test_sets_follow_from_their_seeds_and_share_no_coast(training: Lexicon) -> None:
    assert (
        invented_countries("validation", 3, training)[2].name == invented_countries("validation", 3, training)[2].name
    )
    assert len(set(LAND_SEEDS.values())) == 3
    gaps = sorted(LAND_SEEDS.values())
    assert min(b - a for a, b in pairwise(gaps)) >= 1_000_000
    assert len(coasts("training", 2)) == len(training_countries()) + 2


def test_single_token_words_are_capitalised_whole_words() -> None:
    class Tokenizer:
        def get_vocab(self) -> dict[str, int]:
            return {"ĠHarbor": 1, "Harbor": 2, "Ġharbor": 3, "ĠAb": 4, "ĠX-ray": 5}

    assert single_token_words(Tokenizer()) == ["Harbor"]
