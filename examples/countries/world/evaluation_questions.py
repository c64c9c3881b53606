"""The demo's own benchmark: every fact of a country asked about by another view of its map.

Two worlds: held-out real countries among all countries, and invented test countries among themselves. No country of
either occurs in training or validation. Knows nothing of models but a tokenizer, which tells how long an answer is.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from comem_ray.artifacts import ArtifactError
from comem_ray.evaluation.questions import EvaluationQuestion
from comem_ray.knowledge.items import ItemStore
from examples.countries.train.clip_data import item_text
from examples.countries.world.countries import Country
from examples.countries.world.invented import TEST, fixed_parts, lexicon, single_token_words
from examples.countries.world.questions import ASKED, answer, question_image, wording
from examples.countries.world.sentences import name_in

# What may stand before an answer; the rule drops those of English itself.
ARTICLES = {
    "es": ("el ", "la "),
    "fr": ("le ", "la ", "l'"),
    "de": ("der ", "die ", "das "),
    "it": ("il ", "lo ", "la ", "l'"),
}
SEED = 90  # of the question's view; training, validation and the README's questions have others


def invented_test_countries(tokenizer: Any, count: int = TEST) -> tuple[Country, ...]:
    """The invented countries that nothing was trained or chosen on."""
    return fixed_parts(lexicon(single_token_words(tokenizer)))["test"][:count]


def benchmark_questions(
    countries: Sequence[Country], items: Path, tokens: Callable[[str], int], languages: Sequence[str] = ("en",)
) -> list[EvaluationQuestion]:
    """One question a language, country and fact. `items` is the finished items/ stage; `tokens` counts an answer's.

    A country without a name in a language (an invented one has English alone) is not asked about in it. Raises
    ArtifactError where the item of a country in a language is not there.
    """
    store = ItemStore(items)
    ids = {(item.language, item.text): item.item_id for item in store.get(store.ids, image=False)}
    asked = [(c, language) for language in languages for c in countries if name_in(c, language)]
    if missing := [c.name for c, language in asked if (language, item_text(c, language)) not in ids]:
        raise ArtifactError(f"{items} has no item of {len(missing)} countries, first {missing[0]}")
    return [_question(c, f, lang, ids[lang, item_text(c, lang)], tokens) for c, lang in asked for f in ASKED]


def _question(
    country: Country, fact: Any, language: str, item_id: str, tokens: Callable[[str], int]
) -> EvaluationQuestion:
    out, gold = io.BytesIO(), answer(country, fact, language)
    question_image(country, SEED + ASKED.index(fact)).save(out, format="PNG")
    length = tokens(f" {gold}")
    return EvaluationQuestion(
        data_id=f"{country.code}-{fact}" + ("" if language == "en" else f"-{language}"),
        question=wording(fact, language),
        image=out.getvalue(),
        rule="sentence",
        gold=[gold, *(article + gold for article in ARTICLES.get(language, ()))],
        language=language,
        gold_items=[item_id],
        groups={"fact": fact, "tokens of the answer": str(length) if length < 3 else "3 and more"},
    )
