"""The training data of the demo's open_clip model: pairs of views of one map, pairs of a question and an item's text.

Maps and names are invented, with the outlines, names and facts of the *training* countries among them; held-out
countries appear nowhere. Everything follows from seeds: batch n is the same on every machine. Knows nothing of models.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from examples.countries.world.countries import Country, training_countries
from examples.countries.world.lexicon import invented_name
from examples.countries.world.maps import country_map
from examples.countries.world.outlines import Map, draw, invented_land, random_view
from examples.countries.world.sentences import LANGUAGES, item_text

REAL_WEIGHT = 4  # a real outline is drawn that many times as often as an invented one
GROUP = 16  # look-alikes that are put together in a batch
BROAD_BATCHES = 0.25  # fraction of the batches without look-alikes

QUESTIONS = (
    "{name}",
    "{name}",
    "What is the capital of {name}?",
    "What is the currency of {name}?",
    "What is the language of {name}?",
    "Which language is spoken in {name}?",
    "In which region is {name}?",
    "How many people live in {name}?",
    "Tell me about {name}.",
    "Which country has the capital {capital}?",
)


def training_maps(invented: int, seed: int) -> list[Map]:
    """The maps to train on: those of the training countries, then `invented` ones, every twelfth of them a locator."""
    real = [country_map(country) for country in training_countries()]
    lands = [invented_land(seed + n) for n in range(invented)]
    maps = [Map(land=land) for land in lands]
    rng = random.Random(seed)
    for n in range(0, invented, 12):
        maps[n] = _locator(rng, [rng.choice(lands) for _ in range(rng.randint(1, 6))])
    return real + maps


def _locator(rng: random.Random, lands: list[list[NDArray[np.float64]]]) -> Map:
    """Invented coastlines around a position, as the locator of a country without a coastline has them."""
    around = []
    for land in lands:
        scale, offset = rng.uniform(0.2, 2.0), np.array([rng.uniform(-1.6, 1.6), rng.uniform(-1.2, 1.2)])
        around += [ring * scale + offset for ring in land]
    dots = [(rng.uniform(-1.3, 1.3), rng.uniform(-1, 1)) for _ in range(rng.choice([0, 0, 1, 3, 8]))]
    return Map(land=around, frame=(-4 / 3, -1.0, 4 / 3, 1.0), ring=(0.0, 0.0), dots=dots)


class ViewPairs(Dataset[Tensor]):
    """Batch n: two random views each of `size` different maps, uint8 (2, size, 3, H, W).

    With `neighbours` (maps, k), most batches are made of groups of look-alikes.
    """

    def __init__(
        self,
        maps: list[Map],
        real: int,
        image: tuple[int, int],
        size: int,
        batches: int,
        seed: int,
        neighbours: NDArray[np.int64] | None = None,
    ):
        self._maps, self._image, self._size, self._batches, self._seed = maps, image, size, batches, seed
        self._neighbours = neighbours
        weights = np.ones(len(maps))
        weights[:real] = REAL_WEIGHT
        self._chances = weights / weights.sum()

    def __len__(self) -> int:
        return self._batches

    def __getitem__(self, n: int) -> Tensor:
        if n >= self._batches:
            raise IndexError(n)
        rng = random.Random(f"views {self._seed} {n}")
        chosen = self._choose(np.random.default_rng([self._seed, n]))
        views = [[_pixels(self._maps[i], rng, self._image) for i in chosen] for _ in range(2)]
        return torch.stack([torch.stack(row) for row in views])

    def _choose(self, rng: np.random.Generator) -> list[int]:
        if self._neighbours is None or rng.random() < BROAD_BATCHES:
            return rng.choice(len(self._maps), self._size, replace=False, p=self._chances).tolist()
        seeds = rng.choice(len(self._maps), self._size // GROUP, replace=False, p=self._chances)
        groups = [[i, *rng.permutation(self._neighbours[i])[: GROUP - 1].tolist()] for i in seeds.tolist()]
        return list(dict.fromkeys(i for group in groups for i in group))  # a map must not be its own opposite


def one_view_each(maps: list[Map], image: tuple[int, int], seed: int) -> Tensor:
    """One random view of every map, uint8 (maps, 3, H, W)."""
    rng = random.Random(f"one view {seed}")
    return torch.stack([_pixels(m, rng, image) for m in maps])


def _pixels(content: Map, rng: random.Random, image: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.array(draw(content, random_view(rng), image))).permute(2, 0, 1)


def text_pairs(n: int, size: int, seed: int) -> tuple[list[str], list[str]]:
    """Batch n: `size` questions (or names alone), and the text of the item that each of them is about."""
    rng = random.Random(f"texts {seed} {n}")
    training = training_countries()
    countries: dict[str, Country] = {}
    while len(countries) < size:
        country = rng.choice(training)
        if rng.random() < 0.8:
            name = " ".join(invented_name(rng) for _ in range(rng.choice([1, 1, 2])))
            country = replace(country, name=name, names=dict.fromkeys(LANGUAGES, name), capital=invented_name(rng))
        countries.setdefault(country.name, country)
    questions = [rng.choice(QUESTIONS).format(name=c.name, capital=c.capital) for c in countries.values()]
    return questions, [item_text(c, rng.choice(("en", "en", *LANGUAGES))) for c in countries.values()]
