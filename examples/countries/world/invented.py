"""Invents the countries that the demo's model learns from: coastlines, names and facts, all from seeds.

An invented country is a `Country` like any other, so its map, its images, its text and the questions about it are
made by the same functions as those of a real one. Three sets of them share no coastline, no name and no capital:
training, validation, test. What names a held-out country or its capital occurs in none.

In training, a coastline keeps no name: every sample invents the facts anew, so that they can only be read, not learned.
Knows nothing of models; the words that are single tokens of one are given to it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import pycountry

from examples.countries.train.clip_data import invented_name
from examples.countries.world.countries import Country, Currency, held_out_countries, training_countries
from examples.countries.world.outlines import Ring, invented_land

Part = Literal["training", "validation", "test"]
# Far from each other, from the training of the retriever and from its test.
LAND_SEEDS: dict[Part, int] = {"training": 1_000_000, "validation": 40_000_000, "test": 50_000_000}
VALIDATION, TEST = 200, 200
PLACE = re.compile(r"[A-Z][A-Za-z' -]{2,20}")
FORMS = ("New {}", "Saint {}", "{} Islands", "Republic of {}", "{} Republic", "{} and {}", "{} {}", "{} {}", "{}-{}")
Coast = Sequence[Ring]


@dataclass(frozen=True)
class Lexicon:
    """The words to choose from. A name, a capital or a currency that holds one of `reserved` is never invented."""

    places: tuple[str, ...]  # names, capitals and parts of the training countries
    words: tuple[str, ...]  # single tokens of the model, such as "Harbor"; may be empty
    currencies: tuple[str, ...]
    languages: tuple[str, ...]
    areas: tuple[tuple[str, str], ...]  # (area, region)
    reserved: frozenset[str] = field(default_factory=frozenset)


def lexicon(words: Collection[str] = ()) -> Lexicon:
    """The lexicon of training: everything of the training countries, less what only held-out ones have."""
    known = training_countries()
    places = {place for c in known for place in (c.name, c.capital, *c.provinces)}
    languages = {language for c in known for language in c.languages}
    foreign = {language for c in held_out_countries() for language in c.languages} - languages
    named = {entry.name for entry in pycountry.languages if hasattr(entry, "alpha_2")}
    return Lexicon(
        places=_allowed(p for p in places if PLACE.fullmatch(p)),
        words=_allowed(words),
        currencies=_allowed({c.currency.word for c in known if c.currency}),
        languages=_allowed(languages | {n for n in named - foreign if re.fullmatch("[A-Z][a-z]+", n)}),
        areas=tuple(sorted({(c.area, c.region) for c in known})),
    )


def _allowed(words: Any) -> tuple[str, ...]:
    return tuple(sorted(word for word in words if not names_held_out(word)))


def single_token_words(tokenizer: Any) -> list[str]:
    """Capitalised words of four letters and more that are one token of a byte-level BPE after a space."""
    return [t[1:] for t in tokenizer.get_vocab() if re.fullmatch("Ġ[A-Z][a-z]{3,}", t)]


def names_held_out(text: str) -> bool:
    """True where the name or the capital of a held-out country stands in `text`, as whole words."""
    return _held_out_names().search(text) is not None


@cache
def _held_out_names() -> re.Pattern[str]:
    names = {n.removeprefix("The ") for c in held_out_countries() for n in (c.name, c.capital)}
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(names)))})(?!\w)")


def coasts(part: Part, count: int) -> list[Coast]:
    """`count` invented coastlines of a part; for training, those of the training countries come before them."""
    invented: list[Coast] = [invented_land(LAND_SEEDS[part] + n) for n in range(count)]
    return [*(c.coast for c in training_countries()), *invented] if part == "training" else invented


def invented_countries(part: Part, count: int, lexicon: Lexicon) -> tuple[Country, ...]:
    """`count` countries of a part with lasting names and facts, no name or capital twice."""
    rng, taken = random.Random(f"{part} countries"), set[str]()
    made: list[Country] = []
    for n in range(count):
        coast = invented_land(LAND_SEEDS[part] + n)
        country = invented_country(rng, lexicon, coast, f"{part}-{n:06d}")
        while taken & {country.name, country.capital}:
            country = invented_country(rng, lexicon, coast, country.code)
        taken |= {country.name, country.capital}
        made.append(country)
    return tuple(made)


def fixed_parts(lexicon: Lexicon, validation: int = VALIDATION, test: int = TEST) -> dict[Part, tuple[Country, ...]]:
    """The validation and the test countries; neither holds a word of the other's names."""
    tested = invented_countries("test", test, lexicon)
    validated = invented_countries("validation", validation, without_names_of(tested, lexicon))
    return {"validation": validated, "test": tested}


def without_names_of(countries: Sequence[Country], lexicon: Lexicon) -> Lexicon:
    """The lexicon less every word of the countries' names and capitals."""
    reserved = lexicon.reserved | {w for c in countries for n in (c.name, c.capital) for w in _words(n)} - _form_words()
    free = lambda names: tuple(n for n in names if reserved.isdisjoint(_words(n)))  # noqa: E731
    return Lexicon(
        free(lexicon.places),
        free(lexicon.words),
        free(lexicon.currencies),
        free(lexicon.languages),
        lexicon.areas,
        frozenset(reserved),
    )


def training_lexicon(words: Collection[str] = (), validation: int = VALIDATION, test: int = TEST) -> Lexicon:
    """What training may use: neither held-out countries nor those of validation and test."""
    every = lexicon(words)
    fixed = fixed_parts(every, validation, test)
    return without_names_of([*fixed["validation"], *fixed["test"]], every)


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name)


@cache
def _form_words() -> frozenset[str]:
    return frozenset(w for form in FORMS for w in _words(form))


def invented_country(rng: random.Random, lexicon: Lexicon, coast: Coast, code: str) -> Country:
    """A complete country that exists nowhere. Its further facts, all made up too, are there in part."""
    name = _name(rng, lexicon)
    capital = _unlike(name, lambda: _name(rng, lexicon))
    word = _unlike(name, lambda: _currency(rng, lexicon))
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
        population=_maybe(rng, int(10 ** rng.uniform(3, 9))),
        square_kilometres=_maybe(rng, float(round(10 ** rng.uniform(1, 7)))),
        neighbours=(),
        native_name="",
        demonym="",
        provinces=tuple(_name(rng, lexicon) for _ in range(rng.choice([0, 0, 2, 4]))),
        wiki="",
        latlng=None,
        coast=tuple(coast),
    )


def _maybe(rng: random.Random, value: Any) -> Any:
    return value if rng.random() < 0.7 else None


def _unlike(name: str, invent: Any) -> str:
    while (made := invent()) == name:
        pass
    return made


def _name(rng: random.Random, lexicon: Lexicon) -> str:
    """A name of a country or a place; many are long, as many tokens are what is hard to carry."""
    while True:
        kind = rng.random()
        if kind < 0.25:
            made = invented_name(rng)
        elif kind < 0.4:
            made = invented_name(rng, (3, 4))
        elif kind < 0.7:
            made = rng.choice(lexicon.places)
        elif kind < 0.85 and lexicon.words:
            made = rng.choice(lexicon.words)
        else:
            made = rng.choice(FORMS).format(*(rng.choice((invented_name(rng), _known(rng, lexicon))) for _ in "ab"))
        if _is_free(made, lexicon):
            return made


def _known(rng: random.Random, lexicon: Lexicon) -> str:
    return rng.choice(lexicon.words or lexicon.places)


def _currency(rng: random.Random, lexicon: Lexicon) -> str:
    while True:
        kind = rng.random()
        if kind < 0.5:
            return rng.choice(lexicon.currencies)
        made = rng.choice(lexicon.words) if kind < 0.7 and lexicon.words else invented_name(rng, (1, 2))
        if _is_free(made, lexicon):
            return made


def _is_free(name: str, lexicon: Lexicon) -> bool:
    return lexicon.reserved.isdisjoint(_words(name)) and not names_held_out(name)
