"""How often the demo's CLIP model finds the right item: recall@1, 3 and 10 with confidence intervals.

Real: images of the 45 held-out countries as questions ask with them, against the images of all countries' items.
Synthetic: outlines invented for this test alone, one view against upright images of all of them. Text: a question
that names a held-out country, against the English texts of all items. Intervals are Wilson's, 95%.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from comem_ray.evaluation.intervals import wilson
from comem_ray.retrieval.clip import ClipEncoder
from examples.countries.world.countries import Country, held_out_countries, load_countries
from examples.countries.world.knowledge import item_image
from examples.countries.world.outlines import Map, draw, invented_land, random_view, upright_view
from examples.countries.world.questions import question_image
from examples.countries.world.sentences import item_text

TEST_SEED = 90_000_000  # far from the seeds of training
KS = (1, 3, 10)


@dataclass(frozen=True)
class Recall:
    """Fraction `recall` of `questions` whose right item is among the first k, with its 95% interval."""

    k: int
    recall: float
    low: float
    high: float
    questions: int


def real_recall(encoder: ClipEncoder, views: int = 4) -> list[Recall]:
    """Held-out countries, `views` question images of each, among all countries."""
    gallery = load_countries()
    images = [item_image(c) for c in gallery]
    questions = [(c, question_image(c, 1000 + view)) for c in held_out_countries() for view in range(views)]
    codes = [c.code for c in gallery]
    right = np.array([codes.index(c.code) for c, _ in questions])
    return _recalls(encoder.embed_images([image for _, image in questions]), encoder.embed_images(images), right)


def synthetic_recall(encoder: ClipEncoder, count: int = 200) -> list[Recall]:
    """`count` countries that exist nowhere, among themselves."""
    maps = [Map(land=invented_land(TEST_SEED + n)) for n in range(count)]
    questions: list[Image.Image] = [draw(m, random_view(random.Random(f"test {n}"))) for n, m in enumerate(maps)]
    items = [draw(m, upright_view(random.Random(f"test item {n}"))) for n, m in enumerate(maps)]
    return _recalls(encoder.embed_images(questions), encoder.embed_images(items), np.arange(count))


def text_recall(encoder: ClipEncoder) -> list[Recall]:
    """Questions that name a held-out country, among the English texts of all countries."""
    gallery: tuple[Country, ...] = load_countries()
    questions = [f"What is the capital of {c.name}?" for c in held_out_countries()]
    codes = [c.code for c in gallery]
    right = np.array([codes.index(c.code) for c in held_out_countries()])
    texts = encoder.embed_texts([item_text(c, "en") for c in gallery])
    return _recalls(encoder.embed_texts(questions), texts, right)


def _recalls(questions: NDArray[np.float32], items: NDArray[np.float32], right: NDArray[np.int64]) -> list[Recall]:
    scores = questions @ items.T
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = (order == right[:, None]).argmax(1)
    return [_recall(k, int((ranks < k).sum()), len(ranks)) for k in KS]


def _recall(k: int, hits: int, n: int) -> Recall:
    return Recall(k, hits / n, *wilson(hits / n, n), n)
