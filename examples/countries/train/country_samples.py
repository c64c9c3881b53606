"""Draws the samples of stage `base`: questions about maps, each with its item among others, many of them look-alikes.

The facts of every item are invented for the one sample, so nothing but the item can give them. The position of the
right item is drawn too: any at first, so that the image is needed to pick it; mostly the first one at the end, as
retrieval will have it. Stages `reading` and `warmup` draw single items. Knows nothing of tokens, notes or models.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from examples.countries.train.image_cache import CachedImage
from examples.countries.world.countries import Country
from examples.countries.world.invented import invented_country
from examples.countries.world.lexicon import Lexicon
from examples.countries.world.outlines import Map
from examples.countries.world.questions import FACTS, Fact, answer_sentence, answer_text, question_text
from examples.countries.world.sentences import opening_in_english, text_in

NAME_SHARE = 0.15  # fraction of the questions that ask for the name
FULL_TEXTS = 0.25  # fraction of the items with all their sentences; they make the prompts three times as long


class CountryItem(NamedTuple):
    """A knowledge item of an invented country."""

    country: Country
    text: str
    image: CachedImage


@dataclass(frozen=True)
class SampleSpec:
    """How a sample is drawn: its number of items, and the chances of a look-alike and of the right item in front."""

    items: int
    lookalikes: float
    first: float


@dataclass(frozen=True)
class CountrySample:
    """A question, its items in their order as (text, image), and the sentence that answers it."""

    countries: tuple[Country, ...]
    texts: tuple[str, ...]
    images: tuple[CachedImage, ...]
    right: int  # index of the item that the question is about
    fact: Fact
    image: Any  # a CachedImage, the question's: another view than the item's

    @property
    def question(self) -> str:
        """The question's text."""
        return question_text(self.fact)

    @property
    def country(self) -> Country:
        """The country that the question is about."""
        return self.countries[self.right]

    @property
    def answer(self) -> str:
        """The full-sentence answer."""
        return answer_sentence(self.country, self.fact)

    @property
    def items(self) -> list[tuple[str, Any]]:
        """The items as (text, image)."""
        return list(zip(self.texts, self.images, strict=True))

    def prefix_of_name(self) -> str:
        """The answer up to the country's name: the next token depends on the image alone."""
        return "This country is" if self.fact == "name" else f"The {self.fact} of"

    def prefix_of_fact(self, fact: Fact | None = None) -> str:
        """The answer sentence for a fact of the country (default: the question's), up to the fact."""
        fact = fact or self.fact
        return answer_sentence(self.country, fact).removesuffix(f" {answer_text(self.country, fact)}.")


class CountrySampler:
    """Samples over `maps` with `views` cached views each. `neighbours` (maps, k) are the nearest others of a map."""

    def __init__(self, lexicon: Lexicon, maps: list[Map], views: int, neighbours: Tensor):
        self._lexicon, self._maps, self._views = lexicon, maps, views
        self._neighbours = neighbours.tolist()

    def draw(self, rng: random.Random, spec: SampleSpec, count: int = 1) -> list[CountrySample]:
        """The next `count` samples that `rng` gives: about the same items, each with a right one of its own."""
        maps = [rng.randrange(len(self._maps))]
        maps += self._others(rng, maps[0], spec)
        rng.shuffle(maps)
        countries = tuple(self._country(rng, m) for m in maps)
        texts = tuple(_text(rng, c) for c in countries)
        images = tuple(CachedImage(m, rng.randrange(self._views)) for m in maps)
        rights = [0 if rng.random() < spec.first else rng.randrange(spec.items) for _ in range(count)]
        return [
            CountrySample(countries, texts, images, r, _fact(rng), self._other_view(rng, images[r])) for r in rights
        ]

    def draw_item(self, rng: random.Random) -> CountryItem:
        """One item on its own."""
        number = rng.randrange(len(self._maps))
        country = self._country(rng, number)
        return CountryItem(country, _text(rng, country), CachedImage(number, rng.randrange(self._views)))

    def _country(self, rng: random.Random, number: int) -> Country:
        """A country with that map, its facts invented anew."""
        return invented_country(rng, self._lexicon, self._maps[number].land, f"map-{number:06d}")

    def _other_view(self, rng: random.Random, image: CachedImage) -> CachedImage:
        return CachedImage(image.map, (image.view + 1 + rng.randrange(self._views - 1)) % self._views)

    def _others(self, rng: random.Random, right: int, spec: SampleSpec) -> list[int]:
        others: list[int] = []
        while len(others) < spec.items - 1:
            lookalike = rng.random() < spec.lookalikes
            other = rng.choice(self._neighbours[right]) if lookalike else rng.randrange(len(self._maps))
            if other != right and other not in others:
                others.append(other)
        return others


def _fact(rng: random.Random) -> Fact:
    return "name" if rng.random() < NAME_SHARE else rng.choice(("capital", *FACTS))


def _text(rng: random.Random, country: Country) -> str:
    description = text_in(country, "en") if rng.random() < FULL_TEXTS else opening_in_english(country)
    return f"{country.name}: {description}"
