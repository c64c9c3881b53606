from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comem_ray.config import load_config
from comem_ray.evaluation.sources import read_source
from comem_ray.tasks.rules.own import import_rules
from examples.countries.world.countries import held_out_countries, load_countries
from examples.countries.world.knowledge import item_image
from examples.countries.world.questions import (
    COUNT,
    FACTS,
    all_questions,
    demo_questions,
    read_questions,
    write_questions,
)
from examples.countries.world.sentences import text_in


def test_a_dozen_about_held_out_countries_only() -> None:
    questions = demo_questions()
    assert len(questions) == COUNT == len({q.code for q in questions})
    assert {q.code for q in questions} <= {c.code for c in held_out_countries()}
    assert {q.fact for q in questions} == {"name", *FACTS}


def test_every_answer_stands_in_the_items_text() -> None:
    texts = {c.code: text_in(c, "en") for c in load_countries()}
    questions = all_questions()
    assert len(questions) == 45 * 4
    assert all(q.answer in texts[q.code] for q in questions)
    assert not any(q.answer in q.question for q in questions)


def test_written_questions_come_back_with_their_images(tmp_path: Path) -> None:
    assert write_questions(tmp_path) == COUNT
    questions = read_questions(tmp_path)
    assert questions == demo_questions()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    write_questions(tmp_path)
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_a_questions_image_is_not_its_items(tmp_path: Path) -> None:
    write_questions(tmp_path)
    countries = {c.code: c for c in held_out_countries()}
    for question in demo_questions():
        own_view = np.asarray(Image.open(tmp_path / question.image), dtype=int)
        stored = np.asarray(item_image(countries[question.code]), dtype=int)
        assert np.abs(own_view - stored).mean() > 10


def test_the_demos_configuration_evaluates_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMEM_HOME", str(tmp_path))
    write_questions(tmp_path / "demo" / "questions")
    config = load_config("configs/demo.yaml")
    assert config.evaluation is not None
    (source,) = config.evaluation.sources
    read = read_source(source, import_rules(config.scoring_rules))
    assert read.rejected == []
    assert [(q.question, q.gold) for q in read.questions] == [(q.question, [q.answer]) for q in demo_questions()]
    assert all(q.image_at is not None and q.fault is None for q in read.questions)
