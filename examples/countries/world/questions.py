"""The demo's questions: an image of a held-out country that the knowledge base does not have, a question, its answer.

A question's image is another view of the country's map (other colours, turned, stretched, moved) than the item's.
Knows nothing of retrieval or models; the answer is what a right answer must contain.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from comem_ray.artifacts import write_atomic
from examples.countries.world.countries import Country, held_out_countries
from examples.countries.world.maps import country_map
from examples.countries.world.outlines import IMAGE_SIZE, draw, random_view
from examples.countries.world.sentences import THE, facts_in

Fact = Literal["name", "capital", "currency", "language", "region"]
ASKED: tuple[Fact, ...] = ("capital", "currency", "language", "region")
FACTS: tuple[Fact, ...] = ("name", *ASKED)
COUNT = 12
SEED = 1


@dataclass(frozen=True)
class Question:
    """`image` is a file name beside the list; `answer` stands, word for word, in a right answer."""

    image: str
    question: str
    answer: str
    fact: Fact
    country: str
    code: str


# How the other languages ask for ASKED.
WORDINGS = {
    "es": (
        "¿Cuál es la capital de este país?",
        "¿Cuál es la moneda de este país?",
        "¿Cuál es el idioma de este país?",
        "¿En qué región está este país?",
    ),
    "fr": (
        "Quelle est la capitale de ce pays ?",
        "Quelle est la monnaie de ce pays ?",
        "Quelle est la langue de ce pays ?",
        "Dans quelle région se trouve ce pays ?",
    ),
    "de": (
        "Was ist die Hauptstadt dieses Landes?",
        "Was ist die Währung dieses Landes?",
        "Was ist die Sprache dieses Landes?",
        "In welcher Region liegt dieses Land?",
    ),
    "it": (
        "Qual è la capitale di questo paese?",
        "Qual è la moneta di questo paese?",
        "Qual è la lingua di questo paese?",
        "In quale regione si trova questo paese?",
    ),
}


def wording(fact: Fact, language: str = "en") -> str:
    """How a fact is asked for; a name in English alone."""
    if language != "en":
        return WORDINGS[language][ASKED.index(fact)]
    return "Which country is this?" if fact == "name" else f"What is the {fact} of this country?"


def answer(country: Country, fact: Fact, language: str = "en") -> str:
    """The asked fact of a complete country, as its item's text in the language has it; a name in English alone."""
    assert country.complete, country.name
    assert country.currency is not None
    if language != "en":
        return facts_in(country, language)[ASKED.index(fact)]
    return {
        "name": country.name,
        "capital": country.capital,
        "currency": country.currency.word,
        "language": country.languages[0],
        "region": country.area,
    }[fact]


def sentence(country: Country, fact: Fact) -> str:
    """The full-sentence answer that the demo's model learns to give; `answer` stands in it word for word."""
    if fact == "name":
        return f"This country is {country.name}."
    takes_article = fact == "currency" or (fact == "region" and country.area in THE)
    return f"The {fact} of {country.name} is {'the ' if takes_article else ''}{answer(country, fact)}."


def question_image(country: Country, seed: int, size: tuple[int, int] = IMAGE_SIZE) -> Image.Image:
    """A view of the country's map to ask with; another one for every seed."""
    return draw(country_map(country), random_view(random.Random(f"question {seed} {country.code}")), size)


def all_questions(countries: Sequence[Country] | None = None, facts: Sequence[Fact] = ASKED) -> list[Question]:
    """Every question about `countries` (the held-out ones), country by country."""
    return [
        Question(f"{c.code}.png", wording(fact), answer(c, fact), fact, c.name, c.code)
        for c in (held_out_countries() if countries is None else countries)
        for fact in facts
    ]


def demo_questions() -> list[Question]:
    """The dozen questions of the README: a dozen held-out countries, every fact in turn."""
    chosen = random.Random(SEED).sample(held_out_countries(), COUNT)
    return [q for n, c in enumerate(chosen) for q in all_questions([c], [FACTS[n % len(FACTS)]])]


def write_questions(folder: Path) -> int:
    """Writes `questions.jsonl` and its images into `folder`; an image that is there stays. Returns their number."""
    questions = demo_questions()
    countries = {c.code: c for c in held_out_countries()}
    for question in questions:
        path = folder / question.image
        if not path.exists():
            image = question_image(countries[question.code], SEED)
            write_atomic(path, lambda p, image=image: image.save(p, format="PNG"))  # type: ignore[misc]
    lines = "".join(json.dumps(_row(q), ensure_ascii=False) + "\n" for q in questions)
    write_atomic(folder / "questions.jsonl", lambda p: p.write_text(lines, encoding="utf-8") and None)
    return len(questions)


def _row(question: Question) -> dict[str, Any]:
    """The fields of a question, and those that a source `jsonl` of `evaluation.sources` wants beside them."""
    evaluation = {"data_id": f"{question.code}-{question.fact}", "answers": [question.answer]}
    return {**asdict(question), **evaluation, "rule": "sentence", "language": "en"}


def read_questions(folder: Path) -> list[Question]:
    """The questions that `write_questions` wrote."""
    rows = map(json.loads, (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    return [Question(**{field.name: row[field.name] for field in fields(Question)}) for row in rows]
