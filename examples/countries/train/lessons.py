"""Draws what the base learns from: questions about maps, each with its item among others, many of them look-alikes.

The facts of every item are invented for the one sample, so that nothing but the item can tell them. Where the right
item stands is drawn too: anywhere at first, so that the image must be looked at; mostly in front at the end, as
retrieval will have it. Knows nothing of tokens, notes or models.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from examples.countries.train.image_tokens import Seen
from examples.countries.world.countries import Country
from examples.countries.world.invented import Lexicon, invented_country
from examples.countries.world.outlines import Map
from examples.countries.world.questions import ASKED, Fact, answer, sentence, wording
from examples.countries.world.sentences import opening_in_english, text_in

NAME_SHARE = 0.15  # of the questions ask for the name
FULL_TEXTS = 0.25  # of the items have their further sentences; they make the prompts three times as long


Item = tuple[Country, str, Seen]
"""A country, its text, its image."""


@dataclass(frozen=True)
class Draw:
    """How a sample is drawn: its number of items, and the chances of a look-alike and of the right item in front."""

    items: int
    lookalikes: float
    first: float


@dataclass(frozen=True)
class Lesson:
    """A question, its items best first as (text, image), and the sentence that answers it."""

    countries: tuple[Country, ...]
    texts: tuple[str, ...]
    images: tuple[Seen, ...]
    right: int  # place of the item that the question is about
    fact: Fact
    image: Any  # a Seen, the question's: another view than the item's

    @property
    def question(self) -> str:
        return wording(self.fact)

    @property
    def country(self) -> Country:
        return self.countries[self.right]

    @property
    def answer(self) -> str:
        return sentence(self.country, self.fact)

    @property
    def items(self) -> list[tuple[str, Any]]:
        return list(zip(self.texts, self.images, strict=True))

    def before_name(self) -> str:
        """The answer up to the country's name: what comes next depends on the image alone."""
        return "This country is" if self.fact == "name" else f"The {self.fact} of"

    def before_fact(self) -> str:
        """The answer up to the asked fact."""
        return self.before(self.fact)

    def before(self, fact: Fact) -> str:
        """The sentence that says a fact of the country, up to the fact."""
        return sentence(self.country, fact).removesuffix(f" {answer(self.country, fact)}.")


class Lessons:
    """A source of lessons over `maps` seen in `views` views each, with the nearest others of every map (maps, k)."""

    def __init__(self, lexicon: Lexicon, maps: list[Map], views: int, neighbours: Tensor):
        self._lexicon, self._maps, self._views = lexicon, maps, views
        self._neighbours = neighbours.tolist()

    def get(self, rng: random.Random, draw: Draw, count: int = 1) -> list[Lesson]:
        """The next `count` lessons that `rng` gives: about the same items, each with a right one of its own."""
        maps = [rng.randrange(len(self._maps))]
        maps += self._others(rng, maps[0], draw)
        rng.shuffle(maps)
        countries = tuple(self.country(rng, m) for m in maps)
        texts = tuple(_text(rng, c) for c in countries)
        shown = tuple(Seen(m, rng.randrange(self._views)) for m in maps)
        places = [0 if rng.random() < draw.first else rng.randrange(draw.items) for _ in range(count)]
        return [Lesson(countries, texts, shown, p, _fact(rng), self._other_view(rng, shown[p])) for p in places]

    def _other_view(self, rng: random.Random, seen: Seen) -> Seen:
        return Seen(seen.map, (seen.view + 1 + rng.randrange(self._views - 1)) % self._views)

    def country(self, rng: random.Random, map_number: int) -> Country:
        """A country with that map, its facts invented anew."""
        return invented_country(rng, self._lexicon, self._maps[map_number].land, f"map-{map_number:06d}")

    def item(self, rng: random.Random) -> Item:
        """One item on its own."""
        number = rng.randrange(len(self._maps))
        country = self.country(rng, number)
        return country, _text(rng, country), Seen(number, rng.randrange(self._views))

    def _others(self, rng: random.Random, right: int, draw: Draw) -> list[int]:
        others: list[int] = []
        while len(others) < draw.items - 1:
            alike = rng.random() < draw.lookalikes
            other = rng.choice(self._neighbours[right]) if alike else rng.randrange(len(self._maps))
            if other != right and other not in others:
                others.append(other)
        return others


def _fact(rng: random.Random) -> Fact:
    return "name" if rng.random() < NAME_SHARE else rng.choice(("capital", *ASKED))


def _text(rng: random.Random, country: Country) -> str:
    description = text_in(country, "en") if rng.random() < FULL_TEXTS else opening_in_english(country)
    return f"{country.name}: {description}"
