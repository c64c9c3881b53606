"""The demo's own benchmark: the answer to every question stands in the item that holds it, in every language."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from support.tiny import item_row

from comem_ray.artifacts import ArtifactError, StageFolder, write_parquet
from comem_ray.knowledge.schema import ITEM_SCHEMA
from comem_ray.tasks.rules.scoring import score
from examples.countries.train.clip_data import item_text
from examples.countries.world.countries import held_out_countries
from examples.countries.world.evaluation_questions import benchmark_questions

LANGUAGES = ["en", "es", "fr", "de", "it"]
COUNTRIES = held_out_countries()[:12]


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items")
    asked = [(c, language) for language in LANGUAGES for c in COUNTRIES]
    texts = {"language": [language for _, language in asked], "text": [item_text(c, language) for c, language in asked]}
    rows = [{**item_row(n), **{name: values[n] for name, values in texts.items()}} for n in range(len(asked))]
    write_parquet(folder / "part-0000-000000.parquet", pa.Table.from_pylist(rows, ITEM_SCHEMA))
    stage = StageFolder(folder, "ingest", {})
    stage.commit("part-0000-000000", "", {"part-0000-000000.parquet": len(rows)}, {})
    stage.close(["part-0000-000000"])
    return folder


def test_every_answer_stands_in_its_item(items: Path) -> None:
    texts = {item_row(n)["item_id"]: n for n in range(len(LANGUAGES) * len(COUNTRIES))}
    questions = benchmark_questions(COUNTRIES, items, len, LANGUAGES)
    assert len({q.data_id for q in questions}) == len(questions) == len(LANGUAGES) * len(COUNTRIES) * 4
    for question in questions:
        number = texts[question.gold_items[0]]
        assert question.language == LANGUAGES[number // len(COUNTRIES)]
        assert question.gold[0] in item_text(COUNTRIES[number % len(COUNTRIES)], question.language)
    assert benchmark_questions(COUNTRIES, items, len) == questions[: len(COUNTRIES) * 4]


def test_a_sentence_with_the_answer_is_right(items: Path) -> None:
    questions = {q.data_id: q for q in benchmark_questions(COUNTRIES, items, len, LANGUAGES)}
    code = COUNTRIES[0].code
    for language, said in (
        ("es", "El idioma de este país es el {}."),
        ("fr", "La langue de ce pays est le {}."),
        ("de", "Die Sprache dieses Landes ist {}."),
        ("it", "La lingua di questo paese è il {}."),
    ):
        question = questions[f"{code}-language-{language}"]
        assert score("sentence", said.format(question.gold[0]), question.gold) == 1
        assert score("sentence", said.format("klingon"), question.gold) == 0


def test_a_language_without_items_is_named(items: Path) -> None:
    with pytest.raises(ArtifactError, match="no item of"):
        benchmark_questions(held_out_countries()[:13], items, len, ["fr"])
