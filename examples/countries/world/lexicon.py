"""The words that invented countries are named with, and what keeps held-out names out of them.

Names are made of syllables, taken from the training countries, or single tokens of the model's tokenizer. No word of a
held-out country's name or capital is ever among them. Knows nothing of countries that are invented.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pycountry

from examples.countries.world.countries import Country, held_out_countries, training_countries

PLACE_NAME = re.compile(r"[A-Z][A-Za-z' -]{2,20}")
NAME_FORMS = (
    "New {}", "Saint {}", "{} Islands", "Republic of {}", "{} Republic", "{} and {}", "{} {}", "{} {}", "{}-{}",
)  # fmt: skip
CONSONANTS = [*"bcdfghjklmnprstvwyz", "br", "ch", "dr", "gr", "kh", "pr", "sh", "st", "tr", "th"]
VOWELS = [*"aaeiou", "ai", "ia", "ou"]
ENDINGS = ["", "", "n", "r", "s", "l", "m", "nd", "k", "t", "x"]


@dataclass(frozen=True)
class Lexicon:
    """The words to choose from. A name, a capital or a currency that holds one of `reserved` is never invented."""

    places: tuple[str, ...]  # names, capitals and parts of the training countries
    words: tuple[str, ...]  # single tokens of the model, such as "Harbor"; may be empty
    currencies: tuple[str, ...]
    languages: tuple[str, ...]
    areas: tuple[tuple[str, str], ...]  # (area, region)
    reserved: frozenset[str] = field(default_factory=frozenset)

    def allows(self, name: str) -> bool:
        """True where `name` holds no reserved word and names no held-out country."""
        return self.reserved.isdisjoint(words_of(name)) and not names_held_out(name)


def lexicon(words: Collection[str] = ()) -> Lexicon:
    """The lexicon of training: everything of the training countries, less what only held-out ones have."""
    training = training_countries()
    places = {place for c in training for place in (c.name, c.capital, *c.provinces)}
    languages = {language for c in training for language in c.languages}
    held_out_only = {language for c in held_out_countries() for language in c.languages} - languages
    catalogue = {entry.name for entry in pycountry.languages if hasattr(entry, "alpha_2")}
    return Lexicon(
        places=_allowed(p for p in places if PLACE_NAME.fullmatch(p)),
        words=_allowed(words),
        currencies=_allowed({c.currency.word for c in training if c.currency}),
        languages=_allowed(languages | {n for n in catalogue - held_out_only if re.fullmatch("[A-Z][a-z]+", n)}),
        areas=tuple(sorted({(c.area, c.region) for c in training})),
    )


def without_names_of(countries: Sequence[Country], lexicon: Lexicon) -> Lexicon:
    """The lexicon less every word of the countries' names and capitals."""
    form_words = {w for form in NAME_FORMS for w in words_of(form)}
    reserved = lexicon.reserved | {w for c in countries for n in (c.name, c.capital) for w in words_of(n)} - form_words

    def remaining(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(n for n in names if reserved.isdisjoint(words_of(n)))

    return Lexicon(
        remaining(lexicon.places),
        remaining(lexicon.words),
        remaining(lexicon.currencies),
        remaining(lexicon.languages),
        lexicon.areas,
        frozenset(reserved),
    )


def single_token_words(tokenizer: Any) -> list[str]:
    """Capitalised words of four letters or more that are one token of a byte-level BPE tokenizer after a space."""
    return [t[1:] for t in tokenizer.get_vocab() if re.fullmatch("Ġ[A-Z][a-z]{3,}", t)]


def names_held_out(text: str) -> bool:
    """True where the name or the capital of a held-out country stands in `text`, as whole words."""
    return _held_out_names().search(text) is not None


def invented_name(rng: random.Random, syllables: Sequence[int] = (1, 2, 2, 3)) -> str:
    """A word that could name a place; its number of syllables is one of those given."""
    count = rng.choice(syllables)
    word = "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(count)) + rng.choice(ENDINGS)
    return word.capitalize()


def words_of(name: str) -> list[str]:
    """The words of a name, without punctuation."""
    return re.findall(r"[^\W_]+", name)


def _allowed(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(word for word in words if not names_held_out(word)))


@cache
def _held_out_names() -> re.Pattern[str]:
    names = {n.removeprefix("The ") for c in held_out_countries() for n in (c.name, c.capital)}
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(names)))})(?!\w)")
