"""Every task read from tiny files in its authors' format: what is asked, with which image, and what is not."""

from __future__ import annotations

import gzip
import json

import pytest
from support.published import write_published
from support.scored import jsonl
from support.tiny import png

from comem_ray.config import ConfigError, EvaluationSourceConfig
from comem_ray.evaluation.questions import packed, unpacked, with_image
from comem_ray.evaluation.sources import SourceQuestions, read_source
from comem_ray.prompts import BOXED, BOXED_IN, CAPTION, CHOOSE_LETTER, CHOOSE_NUMBER, CHOOSE_WORDS
from comem_ray.tasks import TASK_NAMES
from comem_ray.tasks.images import ImageReader

PIXELS = 1_000_000


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict[str, EvaluationSourceConfig]:
    made = [EvaluationSourceConfig(**source) for source in write_published(tmp_path_factory.mktemp("published"))]
    return {source.label: source for source in made}


@pytest.fixture(scope="module")
def read(settings) -> dict[str, SourceQuestions]:
    return {label: read_source(source) for label, source in settings.items()}


def test_every_task_is_here(settings):
    assert {source.task for source in settings.values()} == set(TASK_NAMES)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("infoseek", f"Where is it?\n{BOXED}"),
        ("infoseek-es", f"¿Dónde está?\n{BOXED_IN['es']}"),
        ("oven", f"what is this?\n{BOXED}"),
        ("mrag", f"Which one?\n(A) cat\n(B) dog\n(C) cow\n(D) hen\n{CHOOSE_LETTER}\n{BOXED}"),
        ("okvqa", f"What is it?\n{BOXED}"),
        ("aokvqa", f"What is it?\n{BOXED}"),
        ("aokvqa-mc", f"What is it?\n- cat\n- dog\n- cow\n- hen\n{CHOOSE_WORDS}\n{BOXED}"),
        ("viquae", f"Who is this?\n{BOXED}"),
        ("cvqa", f"¿Qué es?\n1. gato\n2. perro\n3. vaca\n4. pollo\n{CHOOSE_NUMBER}\n{BOXED}"),
        ("coco", CAPTION),
        ("encyclopedic_vqa", f"What eats it?\n{BOXED}"),
        ("jsonl", "What?"),
    ],
)
def test_the_words_of_the_first_question(read, label, text):
    assert read[label].questions[0].question == text


@pytest.mark.parametrize(
    ("label", "images"),
    [
        ("infoseek", [100, 101, "image_missing"]),
        ("infoseek-es", [100]),
        ("oven", [100] * 4),
        ("mrag", [120, "image_truncated"]),
        ("okvqa", [130, 131]),
        ("aokvqa", [140]),
        ("aokvqa-mc", [140, 141]),
        ("viquae", [100]),
        ("cvqa", [150, 151]),
        ("coco", [100, 101]),
        ("encyclopedic_vqa", [100, 101]),
        ("jsonl", [100, "image_missing"]),
    ],
)
def test_every_question_gets_its_own_image_or_a_fault(read, label, images):
    reader = ImageReader()
    questions = [with_image(question, reader, PIXELS) for question in read[label].questions]
    assert [q.fault or q.image for q in questions] == [p if isinstance(p, str) else png(p) for p in images]


def test_rows_that_are_no_question_are_counted(read):
    assert read["aokvqa"].left_out == 1  # a difficult direct answer
    assert read["cvqa"].left_out == 1  # a hidden label
    rejected = {label: source.rejected for label, source in read.items() if source.rejected}
    assert {label: len(rows) for label, rows in rejected.items()} == {"viquae": 1, "encyclopedic_vqa": 1, "jsonl": 1}
    assert rejected["viquae"][0]["where"].endswith("viquae.jsonl.gz, line 2")
    assert rejected["viquae"][0]["reason"].startswith("not JSON")
    assert "there is no scoring rule 'guess'" in rejected["jsonl"][0]["reason"]


def test_what_a_question_carries(read):
    infoseek = read["infoseek"]
    number = infoseek.questions[1]
    assert (number.data_id, number.own_id, number.language) == ("infoseek/a2", "a2", "en")
    assert number.groups["type"] == "numerical"
    assert [q.entities for q in infoseek.questions] == [["Q1", "Title 3"], [], []]
    oven = {q.own_id: q for q in read["oven"].questions}
    assert oven["oven_query_seen"].entities == ["Q4", "Title 4", "Title 4"]
    assert [q.entities for q in read["viquae"].questions] == [["Title 6"]]
    assert [q.language for q in read["cvqa"].questions] == ["Spanish", "Urdu"]
    assert [q.language for q in read["jsonl"].questions] == ["fr", "en"]
    assert read["coco"].questions[0].own_id == 11  # ids keep their type


def test_questions_survive_the_road_to_a_worker(read):
    for source in read.values():
        again = unpacked(packed(source.questions))
        assert [q.image_at for q in again] == [q.image_at for q in source.questions]
        assert packed(again) == packed(source.questions)


@pytest.mark.parametrize(
    ("label", "change", "ids"),
    [
        ("infoseek", {"split": "val_unseen_question"}, ["a1", "a3"]),
        ("infoseek", {"limit": 2}, ["a1", "a2"]),
        ("oven", {"split": "query_val_unseen"}, ["oven_query_unseen"]),
        ("mrag", {"split": "Scope"}, ["1"]),
        ("cvqa", {"split": "Urdu"}, ["c1"]),
        ("jsonl", {"limit": 1}, ["p1"]),
    ],
)
def test_split_and_limit(settings, label, change, ids):
    source = read_source(settings[label].model_copy(update=change))
    assert [q.own_id for q in source.questions] == ids


def test_language_and_instruction(settings):
    english = read_source(settings["cvqa"].model_copy(update={"language": "en", "answer_format": "plain"}))
    assert english.questions[0].question == f"What is it?\n1. cat\n2. dog\n3. cow\n4. hen\n{CHOOSE_NUMBER}"
    bulgarian = read_source(settings["infoseek"].model_copy(update={"language": "bg", "instruction": "Накратко."}))
    first = bulgarian.questions[0]
    assert first.question == "Where is it?\nНакратко."
    assert first.groups["language"] == first.language == "bg"


def test_faults_of_a_configuration_are_named(settings, tmp_path):
    def refused(label, **change):
        with pytest.raises(ConfigError, match=f"evaluation.sources: {label}: ") as caught:
            read_source(settings[label].model_copy(update=change))
        return str(caught.value)

    assert "there is no file" in refused("infoseek", paths=["none.jsonl"])
    assert "there are es, string or time, val_unseen_entity, " in refused("infoseek-es", split="test")
    assert "want a folder, a zip, or parquet files" in refused("infoseek", images=settings["infoseek"].paths)
    assert "not JSON" in refused("okvqa", references=settings["infoseek"].paths)
    assert "holds no 'annotations'" in refused("okvqa", references=[])
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"data_id": 1}\n')[:-9])
    assert "ends too early" in refused("viquae", paths=[str(tmp_path / "cut.jsonl.gz")])
    assert "task infoseek does not take titles" in refused("infoseek", titles="x")
    assert "task infoseek does not take references" in refused("infoseek", references=settings["infoseek"].paths)


def test_an_id_that_comes_twice_is_rejected(tmp_path):
    row = {"id": "v", "input": "?", "image": "a.jpg", "output": {"answer": ["x"]}}
    source = EvaluationSourceConfig(task="viquae", paths=[str(jsonl(tmp_path / "v.jsonl", [row, row]))])
    read = read_source(source)
    assert len(read.questions) == 1
    assert read.rejected == [{"where": f"{tmp_path}/v.jsonl, line 2", "reason": "a second question with id 'v'"}]


def test_okvqa_questions_without_answers_are_rejected(settings, tmp_path):
    path = tmp_path / "questions.json"
    path.write_text(json.dumps({"questions": [{"question_id": 70, "question": "?"}, {"question_id": 1}, 5]}))
    source = read_source(settings["okvqa"].model_copy(update={"paths": [str(path)]}))
    assert len(source.questions) == 1
    assert [row["reason"] for row in source.rejected] == [
        "field 'question' holds no text",  # an answer without its question
        "there are no answers to this question",
        "a JSON int, wanted an object",
    ]


def test_a_rule_of_ones_own_is_known_where_the_configuration_names_it(settings):
    read = read_source(settings["jsonl"], {"guess": lambda prediction, gold: 1.0})
    assert [q.rule for q in read.questions] == ["exact", "exact", "guess"]
    assert not read.rejected
