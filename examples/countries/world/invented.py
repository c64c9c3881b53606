"""Invents the countries that the demo's model learns from: coastlines, names and facts, all from seeds.

An invented country is a `Country` like any other, so its map, its image, its text and the questions about it are made
by the same functions as those of a real one. The three splits (training, validation, test) share no coastline, no name
and no capital. What names a held-out country or its capital occurs in none of them.

In training a coastline keeps no name: every sample invents the facts anew, so they can only be read, not learned.
Knows nothing of models; the words that are single tokens of one are given to it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

from examples.countries.world.countries import Country, Currency, training_countries
from examples.countries.world.lexicon import NAME_FORMS, Lexicon, invented_name, lexicon, without_names_of
from examples.countries.world.outlines import Ring, invented_land

Split = Literal["training", "validation", "test"]
# Far from each other, from the training of the retriever and from its test.
LAND_SEEDS: dict[Split, int] = {"training": 1_000_000, "validation": 40_000_000, "test": 50_000_000}
VALIDATION, TEST = 200, 200  # countries of the split
Coast = Sequence[Ring]


def coastlines(split: Split, count: int) -> list[Coast]:
    """`count` invented coastlines of a split; for training, those of the training countries come before them."""
    invented: list[Coast] = [invented_land(LAND_SEEDS[split] + n) for n in range(count)]
    return [*(c.coast for c in training_countries()), *invented] if split == "training" else invented


def invented_countries(split: Split, count: int, lexicon: Lexicon) -> tuple[Country, ...]:
    """`count` countries of a split with lasting names and facts; no name or capital occurs twice."""
    rng, used = random.Random(f"{split} countries"), set[str]()
    countries: list[Country] = []
    for n in range(count):
        coast = invented_land(LAND_SEEDS[split] + n)
        country = invented_country(rng, lexicon, coast, f"{split}-{n:06d}")
        while used & {country.name, country.capital}:
            country = invented_country(rng, lexicon, coast, country.code)
        used |= {country.name, country.capital}
        countries.append(country)
    return tuple(countries)


def fixed_splits(lexicon: Lexicon, validation: int = VALIDATION, test: int = TEST) -> dict[Split, tuple[Country, ...]]:
    """The validation and the test countries; neither holds a word of the other's names."""
    test_split = invented_countries("test", test, lexicon)
    validation_split = invented_countries("validation", validation, without_names_of(test_split, lexicon))
    return {"validation": validation_split, "test": test_split}


def training_lexicon(words: Collection[str] = (), validation: int = VALIDATION, test: int = TEST) -> Lexicon:
    """What training may use: no word of held-out countries, nor of those of validation and test."""
    full = lexicon(words)
    fixed = fixed_splits(full, validation, test)
    return without_names_of([*fixed["validation"], *fixed["test"]], full)


def invented_country(rng: random.Random, lexicon: Lexicon, coast: Coast, code: str) -> Country:
    """A complete country that exists nowhere. Its further facts, all invented too, are there in part."""
    name = _name(rng, lexicon)
    capital = _different_from(name, lambda: _name(rng, lexicon))
    word = _different_from(name, lambda: _currency(rng, lexicon))
    area, region = rng.choice(lexicon.areas)
    languages = tuple(rng.sample(lexicon.languages, rng.choice([1, 1, 2, 3])))
    return Country(
        code=code,
        name=name,
        names={},
        former=False,
        region=region,
        area=area,
        capital=capital,
        currency=Currency("".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=3)), f"{name} {word}", word),
        languages=languages,
        language_codes=(),
        population=_or_none(rng, int(10 ** rng.uniform(3, 9))),
        square_kilometres=_or_none(rng, float(round(10 ** rng.uniform(1, 7)))),
        neighbours=(),
        native_name="",
        demonym="",
        provinces=tuple(_name(rng, lexicon) for _ in range(rng.choice([0, 0, 2, 4]))),
        wiki="",
        latlng=None,
        coast=tuple(coast),
    )


def _or_none(rng: random.Random, value: Any) -> Any:
    return value if rng.random() < 0.7 else None


def _different_from(name: str, invent: Callable[[], str]) -> str:
    while (invented := invent()) == name:
        pass
    return invented


def _name(rng: random.Random, lexicon: Lexicon) -> str:
    """A name of a country or a place; many are long, as many tokens are what is hard to carry."""
    while True:
        chance = rng.random()
        if chance < 0.25:
            name = invented_name(rng)
        elif chance < 0.4:
            name = invented_name(rng, (3, 4))
        elif chance < 0.7:
            name = rng.choice(lexicon.places)
        elif chance < 0.85 and lexicon.words:
            name = rng.choice(lexicon.words)
        else:
            form = rng.choice(NAME_FORMS)
            name = form.format(*(rng.choice((invented_name(rng), _known_word(rng, lexicon))) for _ in "ab"))
        if lexicon.allows(name):
            return name


def _known_word(rng: random.Random, lexicon: Lexicon) -> str:
    return rng.choice(lexicon.words or lexicon.places)


def _currency(rng: random.Random, lexicon: Lexicon) -> str:
    while True:
        chance = rng.random()
        if chance < 0.5:
            return rng.choice(lexicon.currencies)
        name = rng.choice(lexicon.words) if chance < 0.7 and lexicon.words else invented_name(rng, (1, 2))
        if lexicon.allows(name):
            return name
