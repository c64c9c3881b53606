"""The demo's own evaluation: the answer to every question stands in the item that holds it, in every language."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from support.tiny import item_row

from comem_ray.artifacts import ArtifactError, StageFolder, write_parquet
from comem_ray.knowledge.schema import ITEM_SCHEMA
from comem_ray.tasks.example import Example
from examples.countries.world.countries import held_out_countries
from examples.countries.world.evaluation_questions import evaluation_questions
from examples.countries.world.scoring import sentence_score
from examples.countries.world.sentences import item_text

LANGUAGES = ["en", "es", "fr", "de", "it"]
COUNTRIES = held_out_countries()[:12]


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items")
    pairs = [(c, language) for language in LANGUAGES for c in COUNTRIES]
    texts = {"language": [language for _, language in pairs], "text": [item_text(c, language) for c, language in pairs]}
    rows = [{**item_row(n), **{name: values[n] for name, values in texts.items()}} for n in range(len(pairs))]
    write_parquet(folder / "part-0000-000000.parquet", pa.Table.from_pylist(rows, ITEM_SCHEMA))
    stage = StageFolder(folder, "ingest", {})
    stage.commit("part-0000-000000", "", {"part-0000-000000.parquet": len(rows)}, {})
    stage.close(["part-0000-000000"])
    return folder


@pytest.fixture(scope="module")
def questions(items: Path) -> list[Example]:
    return evaluation_questions(COUNTRIES, items, len, LANGUAGES)


def test_every_answer_stands_in_its_item(questions: list[Example]) -> None:
    texts = {item_row(n)["item_id"]: n for n in range(len(LANGUAGES) * len(COUNTRIES))}
    assert len({q.data_id for q in questions}) == len(questions) == len(LANGUAGES) * len(COUNTRIES) * 4
    for question in questions:
        number = texts[question.gold_items[0]]
        assert question.language == LANGUAGES[number // len(COUNTRIES)]
        assert question.gold[0] in item_text(COUNTRIES[number % len(COUNTRIES)], question.language)


def test_questions_are_in_english_by_default(items: Path, questions: list[Example]) -> None:
    assert evaluation_questions(COUNTRIES[:2], items, len) == questions[:8]


def test_a_sentence_with_the_answer_is_right(questions: list[Example]) -> None:
    by_id = {q.data_id: q for q in questions}
    code = COUNTRIES[0].code
    for language, sentence in (
        ("es", "El idioma de este país es el {}."),
        ("fr", "La langue de ce pays est le {}."),
        ("de", "Die Sprache dieses Landes ist {}."),
        ("it", "La lingua di questo paese è il {}."),
    ):
        question = by_id[f"{code}-language-{language}"]
        assert sentence_score(sentence.format(question.gold[0]), question.gold) == 1
        assert sentence_score(sentence.format("klingon"), question.gold) == 0


def test_a_language_without_items_is_named(items: Path) -> None:
    with pytest.raises(ArtifactError, match="no item of"):
        evaluation_questions(held_out_countries()[:13], items, len, ["fr"])
