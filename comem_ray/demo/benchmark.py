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
from comem_ray.demo.clip_data import item_text
from comem_ray.demo.countries import Country
from comem_ray.demo.model.world import TEST, fixed_parts, lexicon, single_token_words
from comem_ray.demo.questions import ASKED, answer, question_picture, wording
from comem_ray.evaluation.questions import EvaluationQuestion
from comem_ray.items import ItemStore

SEED = 90  # of the question's view; training, validation and the README's questions have others


def invented_test_countries(tokenizer: Any, count: int = TEST) -> tuple[Country, ...]:
    """The invented countries that nothing was trained or chosen on."""
    return fixed_parts(lexicon(single_token_words(tokenizer)))["test"][:count]


def benchmark_questions(
    countries: Sequence[Country], items: Path, tokens: Callable[[str], int]
) -> list[EvaluationQuestion]:
    """One question a country and fact. `items` is the finished items/ stage; `tokens` counts those of an answer.

    Raises ArtifactError where the English item of a country is not there.
    """
    store = ItemStore(items)
    ids = {item.text: item.item_id for item in store.get(store.ids, picture=False) if item.language == "en"}
    if missing := [c.name for c in countries if item_text(c, "en") not in ids]:
        raise ArtifactError(f"{items} has no item of {len(missing)} countries, first {missing[0]}")
    return [_question(c, fact, ids[item_text(c, "en")], tokens) for c in countries for fact in ASKED]


def _question(country: Country, fact: Any, item_id: str, tokens: Callable[[str], int]) -> EvaluationQuestion:
    out, gold = io.BytesIO(), answer(country, fact)
    question_picture(country, SEED + ASKED.index(fact)).save(out, format="PNG")
    length = tokens(f" {gold}")
    return EvaluationQuestion(
        data_id=f"{country.code}-{fact}",
        question=wording(fact),
        picture=out.getvalue(),
        rule="sentence",
        gold=[gold],
        gold_items=[item_id],
        groups={"fact": fact, "tokens of the answer": str(length) if length < 3 else "3 and more"},
    )
