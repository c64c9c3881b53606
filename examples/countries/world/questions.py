"""The demo's questions: an image of a held-out country that the knowledge base does not have, a question, its answer.

A question's image is another view of the country's map (other colours, rotated, stretched, moved) than the item's.
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
from examples.countries.world.sentences import AREAS_WITH_ARTICLE, facts_in

Fact = Literal["name", "capital", "currency", "language", "region"]
FACTS: tuple[Fact, ...] = ("capital", "currency", "language", "region")
NAME_AND_FACTS: tuple[Fact, ...] = ("name", *FACTS)
COUNT = 12  # demo questions
SEED = 1  # of their choice and of their views


@dataclass(frozen=True)
class DemoQuestion:
    """`image` is a file name beside the list; `answer` stands, word for word, in a right answer."""

    image: str
    question: str
    answer: str
    fact: Fact
    country: str
    code: str


# The questions for FACTS in the other languages.
QUESTION_TEXTS = {
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
QUESTION_LANGUAGES = ("en", *QUESTION_TEXTS)


def question_text(fact: Fact, language: str = "en") -> str:
    """The question for a fact. The name is asked for in English alone."""
    if language != "en":
        return QUESTION_TEXTS[language][FACTS.index(fact)]
    return "Which country is this?" if fact == "name" else f"What is the {fact} of this country?"


def answer_text(country: Country, fact: Fact, language: str = "en") -> str:
    """That fact of a complete country, as its item's text in the language has it. The name in English alone."""
    assert country.complete, country.name
    assert country.currency is not None
    if language != "en":
        return facts_in(country, language)[FACTS.index(fact)]
    return {
        "name": country.name,
        "capital": country.capital,
        "currency": country.currency.word,
        "language": country.languages[0],
        "region": country.area,
    }[fact]


def answer_sentence(country: Country, fact: Fact) -> str:
    """The full-sentence answer that the demo's model learns to give; `answer_text` stands in it word for word."""
    if fact == "name":
        return f"This country is {country.name}."
    takes_article = fact == "currency" or (fact == "region" and country.area in AREAS_WITH_ARTICLE)
    return f"The {fact} of {country.name} is {'the ' if takes_article else ''}{answer_text(country, fact)}."


def question_image(country: Country, seed: int, size: tuple[int, int] = IMAGE_SIZE) -> Image.Image:
    """A view of the country's map for a question, `size` (width, height) pixels; every seed gives another view."""
    return draw(country_map(country), random_view(random.Random(f"question {seed} {country.code}")), size)


def all_questions(countries: Sequence[Country] | None = None, facts: Sequence[Fact] = FACTS) -> list[DemoQuestion]:
    """Every question about `countries` (default: the held-out ones), country by country."""
    return [
        DemoQuestion(f"{c.code}.png", question_text(fact), answer_text(c, fact), fact, c.name, c.code)
        for c in (held_out_countries() if countries is None else countries)
        for fact in facts
    ]


def demo_questions() -> list[DemoQuestion]:
    """The dozen questions that `make demo` asks from: a dozen held-out countries, every fact in turn."""
    chosen = random.Random(SEED).sample(held_out_countries(), COUNT)
    return [q for n, c in enumerate(chosen) for q in all_questions([c], [NAME_AND_FACTS[n % len(NAME_AND_FACTS)]])]


def write_questions(folder: Path) -> int:
    """Writes `questions.jsonl` and its images into `folder`; an image that is already there stays.

    Returns the number of questions.
    """
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


def _row(question: DemoQuestion) -> dict[str, Any]:
    """The fields of a question, and those that a source `jsonl` of `evaluation.sources` wants beside them."""
    evaluation = {"data_id": f"{question.code}-{question.fact}", "answers": [question.answer]}
    return {**asdict(question), **evaluation, "rule": "sentence", "language": "en"}


def read_questions(folder: Path) -> list[DemoQuestion]:
    """The questions that `write_questions` wrote into `folder`."""
    rows = map(json.loads, (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    return [DemoQuestion(**{field.name: row[field.name] for field in fields(DemoQuestion)}) for row in rows]
