"""Self-synthesis in one process: what is asked, what is kept, and the reasons of what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tiny import png
from support.tiny_clip import write_clip
from support.tiny_run import write_run

from comem_ray.config import Config, SynthesisConfig
from comem_ray.prompts import BOXED
from comem_ray.tasks.example import Example
from comem_ray.tasks.files import Place
from comem_ray.tasks.images import ImageAt
from comem_ray.training.data.questions import RejectedSample
from comem_ray.training.data.synthesis import (
    RejectedAnswer,
    Synthesizer,
    score_answer,
    synthesis_identity,
    with_instruction,
)

SOURCES = [{"task": "jsonl", "path": "questions.jsonl"}]


def settings(**fields) -> SynthesisConfig:
    return SynthesisConfig.model_validate({"sources": SOURCES, "max_new_tokens": 4, **fields})


def question(text: str = "Who?", image: str | None = None, rule: str = "exact", gold=("Ann",)) -> Example:
    at = None if image is None else ImageAt(image)
    place = Place(Path("questions.jsonl"), "line", 0)
    return Example("q1", text, None, rule, list(gold), source="own", image_at=at, place=place)


@pytest.fixture(scope="module")
def config(make_config, tmp_path_factory) -> Config:
    home = tmp_path_factory.mktemp("synthesis")
    clip, _ = write_clip(home)
    config = make_config(root=str(home / "run"), clip=clip, retrieval={"by": "text", "language": "de"})
    write_run(config, [12])
    return config


def test_the_instruction_stands_behind_the_question():
    assert with_instruction("Who?", settings()) == f"Who?\n{BOXED}"
    assert with_instruction("Who?", settings(answer_format="plain")) == "Who?"
    assert with_instruction("Who?", settings(answer_format="plain", instruction="In a word.")) == "Who?\nIn a word."


def test_what_is_kept():
    assert score_answer(question(), r"Her name. \boxed{the Ann}", "stop", settings()) == 1.0
    assert score_answer(question(), "Ann.", "stop", settings(answer_format="plain")) == 1.0


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        (r"\boxed{Ann}", "length", "cut_short"),
        ("", "stop", "empty_answer"),
        ("Ann", "stop", "no_box"),
        (r"Ann \boxed{Bob}", "stop", "wrong_answer"),
        (r"Ann \boxed{}", "stop", "wrong_answer"),
    ],
)
def test_what_is_not_kept(text, finish, reason):
    with pytest.raises(RejectedAnswer) as caught:
        score_answer(question(), text, finish, settings())
    assert caught.value.reason == reason


def test_a_lower_bar_keeps_what_some_annotators_answer():
    of_ten = question(rule="vqa", gold=["dog"] * 3 + ["cat"] * 7)
    assert score_answer(of_ten, "dog", "stop", settings(answer_format="plain", min_score=0.8)) == pytest.approx(0.9)
    with pytest.raises(RejectedAnswer, match=r"score 0.9 of 'dog' by rule vqa"):
        score_answer(of_ten, "dog", "stop", settings(answer_format="plain"))


def test_a_rule_of_ones_own_keeps_what_it_takes_for_right():
    rules = {"first": lambda prediction, gold: float(prediction[:1] == gold[0][:1])}
    assert score_answer(question(rule="first"), "Anna", "stop", settings(answer_format="plain"), rules) == 1.0


def test_questions_without_images_are_asked_by_text(config, tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "page.png").write_bytes(b"<html>")
    questions = [question(), question(image=str(tmp_path / "a.png")), question(image=str(tmp_path / "page.png"))]
    questions += [question("long " * 2_000), question(image=str(tmp_path / "gone.png"))]
    outcomes = Synthesizer(config, settings(batch=2)).outcomes(questions)
    assert all(isinstance(outcome, RejectedSample) for outcome in outcomes)
    reasons = [outcome.reason for outcome in outcomes]
    assert set(reasons[:2]) <= {"cut_short", "no_box"}
    assert reasons[2:] == ["image_unreadable", "prompt_too_long", "image_missing"]
    assert outcomes[0].answer


def test_an_answer_that_is_not_finite_is_a_rejected_question(config):
    synthesizer = Synthesizer(config, settings())
    with torch.no_grad():
        synthesizer._pipeline.reasoner.backbone.model.lm_head.weight.fill_(torch.inf)
    (outcome,) = synthesizer.outcomes([question()])
    assert isinstance(outcome, RejectedSample)
    assert outcome.reason == "not_finite"
    assert "backbone.precision" in outcome.detail or "damaged" in outcome.detail


def test_the_identity_says_what_an_outcome_depends_on(config):
    base = synthesis_identity(config, settings())
    assert synthesis_identity(config, settings(batch=1, workers={"count": 9})) == base
    assert synthesis_identity(config, settings(instruction="In a word.")) != base
    colder = config.model_copy(update={"reasoner": config.reasoner.model_copy(update={"temperature": 0.5})})
    assert synthesis_identity(colder, settings()) != base
    ruled = config.model_copy(update={"scoring_rules": {"mine": "module:function"}})
    assert synthesis_identity(ruled, settings()) != base


@pytest.mark.parametrize(
    "text", [r"It is \boxed{\text{Ann}}", r"$\boxed {\mathrm{Ann}}$", r"\boxed{**Ann**}", r"\boxed{\text{the~Ann}}"]
)
def test_a_right_answer_in_dress_is_kept(text):
    assert score_answer(question(), text, "stop", settings()) == 1.0
    assert score_answer(question(), text.removeprefix("It is "), "stop", settings(answer_format="plain")) == 1.0


def test_a_rule_that_fails_on_an_answer_costs_that_question():
    with pytest.raises(RejectedAnswer, match="rule mine fails: IndexError") as caught:
        score_answer(question(rule="mine"), "Ann", "stop", settings(answer_format="plain"), {"mine": lambda p, g: g[5]})
    assert caught.value.reason == "scoring_failed"


def test_an_item_that_cannot_be_read_costs_the_questions_that_get_it(config):
    """Items in "de" are 44 to 68 pixels wide and 44 high; the widest has more than 2,900 pixels."""
    images = config.ingest.images.model_copy(update={"max_pixels": 2_900})
    smaller = config.model_copy(update={"ingest": config.ingest.model_copy(update={"images": images})})
    questions = [question("Who?"), question("Where?")]
    for top_k, items in ((4, None), (4, 1)):  # all four items in the prompt, and the best alone
        outcomes = Synthesizer(smaller, settings(top_k=top_k, answer_with_items=items)).outcomes(questions)
        reasons = {outcome.reason for outcome in outcomes}
        if items is None:
            assert reasons == {"item_image_too_many_pixels"}
            assert "2,900" in outcomes[0].detail
        else:
            assert reasons <= {"item_image_too_many_pixels", "cut_short", "no_box"}
