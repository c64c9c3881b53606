"""Invented countries: complete, seeded, in three sets that share nothing, without a word of what is held out."""

import random
import re
from itertools import pairwise

import pytest

from examples.countries.world.countries import Country, held_out_countries, training_countries
from examples.countries.world.invented import (
    LAND_SEEDS,
    coastlines,
    fixed_splits,
    invented_countries,
    invented_country,
    training_lexicon,
)
from examples.countries.world.lexicon import Lexicon, lexicon
from examples.countries.world.questions import NAME_AND_FACTS, answer_sentence, answer_text
from examples.countries.world.sentences import item_text

WORDS = ("Harbor", "Meridian", "Poland", "Jordan", "Silver", "Turkey", "Candle")


@pytest.fixture(scope="module")
def training() -> Lexicon:
    return training_lexicon(WORDS, validation=30, test=30)


def some_countries(training: Lexicon, count: int = 300) -> list[Country]:
    rng, coast = random.Random(0), coastlines("test", 1)[0]
    return [invented_country(rng, training, coast, f"x-{n}") for n in range(count)]


def test_nothing_held_out_in_any_training_text(training: Lexicon) -> None:
    names = {name for c in held_out_countries() for name in (c.name, c.capital)}
    for country in some_countries(training):
        texts = [item_text(country, "en"), *(answer_sentence(country, fact) for fact in NAME_AND_FACTS)]
        for name in names:
            assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", " ".join(texts)), (name, texts)


def test_nothing_of_the_test_set_in_training_or_validation(training: Lexicon) -> None:
    fixed = fixed_splits(lexicon(WORDS), 30, 30)
    names = {name for split in fixed.values() for c in split for name in (c.name, c.capital)}
    assert not names & {name for c in some_countries(training) for name in (c.name, c.capital, *c.provinces)}
    test, validation = ({n for c in fixed[split] for n in (c.name, c.capital)} for split in ("test", "validation"))
    assert not test & validation
    assert len(test) == 60 == len(validation)


def test_every_invented_country_can_be_asked_about(training: Lexicon) -> None:
    for country in some_countries(training, 50):
        assert country.complete
        text = item_text(country, "en")
        assert text.startswith(f"{country.name}: This is {country.name}, a country in ")
        assert all(answer_text(country, fact) in text for fact in NAME_AND_FACTS)
        assert all(answer_text(country, fact) in answer_sentence(country, fact) for fact in NAME_AND_FACTS)


def test_many_names_are_long(training: Lexicon) -> None:
    lengths = [len(c.capital) for c in some_countries(training)]
    assert sum(length >= 12 for length in lengths) > 60
    assert sum(length <= 6 for length in lengths) > 20


def test_sets_follow_from_their_seeds_and_share_no_coast(training: Lexicon) -> None:
    assert (
        invented_countries("validation", 3, training)[2].name == invented_countries("validation", 3, training)[2].name
    )
    assert len(set(LAND_SEEDS.values())) == 3
    gaps = sorted(LAND_SEEDS.values())
    assert min(b - a for a, b in pairwise(gaps)) >= 1_000_000
    assert len(coastlines("training", 2)) == len(training_countries()) + 2
