"""The demo's own evaluation: a question for every fact of a country, with another view of its map.

Two worlds: held-out real countries among all countries, and invented test countries among themselves. No country of
either occurs in training or validation. Knows nothing of models but a tokenizer, which gives the length of an answer.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from comem_ray.artifacts import ArtifactError
from comem_ray.knowledge.items import ItemStore
from comem_ray.tasks.example import Example
from examples.countries.world.countries import Country
from examples.countries.world.invented import TEST, fixed_splits
from examples.countries.world.lexicon import lexicon, single_token_words
from examples.countries.world.questions import FACTS, Fact, answer_text, question_image, question_text
from examples.countries.world.sentences import item_text, name_in

# Articles that may stand before an answer; the scoring rule drops those of English itself.
ARTICLES = {
    "es": ("el ", "la "),
    "fr": ("le ", "la ", "l'"),
    "de": ("der ", "die ", "das "),
    "it": ("il ", "lo ", "la ", "l'"),
}
SEED = 90  # of the question's view; training, validation and the demo's questions have others


def invented_test_countries(tokenizer: Any, count: int = TEST) -> tuple[Country, ...]:
    """The invented countries that no training and no choice of a setting has seen."""
    return fixed_splits(lexicon(single_token_words(tokenizer)))["test"][:count]


def evaluation_questions(
    countries: Sequence[Country], items: Path, count_tokens: Callable[[str], int], languages: Sequence[str] = ("en",)
) -> list[Example]:
    """One question per language, country and fact, in this order.

    `items` is the finished items/ stage; `count_tokens` gives the number of tokens of a text. A country without a name
    in a language (an invented one has English alone) has no question in it. Raises ArtifactError where the item of a
    country in a language is missing.
    """
    store = ItemStore(items)
    item_ids = {(item.language, item.text): item.item_id for item in store.get(store.ids, image=False)}
    pairs = [(c, language) for language in languages for c in countries if name_in(c, language)]
    if missing := [c.name for c, language in pairs if (language, item_text(c, language)) not in item_ids]:
        raise ArtifactError(f"{items} has no item of {len(missing)} countries, first {missing[0]}")
    return [
        _question(country, fact, language, item_ids[language, item_text(country, language)], count_tokens)
        for country, language in pairs
        for fact in FACTS
    ]


def _question(country: Country, fact: Fact, language: str, item_id: str, count_tokens: Callable[[str], int]) -> Example:
    png, gold = io.BytesIO(), answer_text(country, fact, language)
    question_image(country, SEED + FACTS.index(fact)).save(png, format="PNG")
    length = count_tokens(f" {gold}")
    return Example(
        data_id=f"{country.code}-{fact}" + ("" if language == "en" else f"-{language}"),
        question=question_text(fact, language),
        image=png.getvalue(),
        rule="sentence",
        gold=[gold, *(article + gold for article in ARTICLES.get(language, ()))],
        language=language,
        gold_items=[item_id],
        groups={"fact": fact, "tokens of the answer": str(length) if length < 3 else "3 and more"},
    )
