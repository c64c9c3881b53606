"""Self-synthesis in one process: what is asked, what is kept, and the reasons of what is not."""

from __future__ import annotations

import pytest
from support.tiny import png
from support.tiny_clip import write_clip
from support.tiny_run import write_run

from comem_ray.config import Config, SynthesisConfig
from comem_ray.prompts import BOXED
from comem_ray.tasks.rows import RejectedRow
from comem_ray.training.data.questions import GoldQuestion, Rejection
from comem_ray.training.data.synthesis import Synthesizer, asked, judged, synthesis_identity

SOURCES = [{"format": "jsonl", "path": "questions.jsonl"}]


def settings(**fields) -> SynthesisConfig:
    return SynthesisConfig.model_validate({"sources": SOURCES, "max_new_tokens": 4, **fields})


def question(text: str = "Who?", image: str | None = None, gold=("Ann",)) -> GoldQuestion:
    return GoldQuestion("own", "q1", text, image, "exact", list(gold), "en", "questions.jsonl", 0)


@pytest.fixture(scope="module")
def config(make_config, tmp_path_factory) -> Config:
    home = tmp_path_factory.mktemp("synthesis")
    clip, _ = write_clip(home)
    config = make_config(root=str(home / "run"), clip=clip, retrieval={"by": "text", "language": "de"})
    write_run(config, [12])
    return config


def test_the_instruction_stands_behind_the_question():
    assert asked("Who?", settings()) == f"Who?\n{BOXED}"
    assert asked("Who?", settings(answer_format="plain")) == "Who?"
    assert asked("Who?", settings(answer_format="plain", instruction="In a word.")) == "Who?\nIn a word."


def test_what_is_kept():
    assert judged(question(), r"Her name. \boxed{the Ann}", "stop", settings()) == 1.0
    assert judged(question(), "Ann.", "stop", settings(answer_format="plain")) == 1.0


@pytest.mark.parametrize(
    ("said", "finish", "reason"),
    [
        (r"\boxed{Ann}", "length", "cut_short"),
        ("", "stop", "empty_answer"),
        ("Ann", "stop", "no_box"),
        (r"Ann \boxed{Bob}", "stop", "wrong_answer"),
    ],
)
def test_what_is_not_kept(said, finish, reason):
    with pytest.raises(RejectedRow) as caught:
        judged(question(), said, finish, settings())
    assert caught.value.reason == reason


def test_a_lower_bar_keeps_what_some_annotators_said():
    asked_of_ten = GoldQuestion("okvqa", "1", "What?", None, "vqa", ["dog"] * 3 + ["cat"] * 7, "en", "q.json", 0)
    kept = settings(answer_format="plain", min_score=0.8)
    assert judged(asked_of_ten, "dog", "stop", kept) == pytest.approx(0.9)
    with pytest.raises(RejectedRow, match=r"score 0.9 of 'dog' by rule vqa"):
        judged(asked_of_ten, "dog", "stop", settings(answer_format="plain"))


def test_questions_without_images_are_asked_by_text(config, tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "page.png").write_bytes(b"<html>")
    questions = [question(), question(image=str(tmp_path / "a.png")), question(image=str(tmp_path / "page.png"))]
    questions += [question("long " * 2_000), question(image=str(tmp_path / "gone.png"))]
    fates = Synthesizer(config, settings(batch=2)).fates(questions)
    assert all(isinstance(fate, Rejection) for fate in fates)
    reasons = [fate.reason for fate in fates]
    assert set(reasons[:2]) <= {"cut_short", "no_box"}
    assert reasons[2:] == ["image_unreadable", "prompt_too_long", "image_missing"]
    assert fates[0].answer


def test_the_identity_says_what_a_fate_depends_on(config):
    base = synthesis_identity(config, settings())
    assert synthesis_identity(config, settings(batch=1, workers={"count": 9})) == base
    assert synthesis_identity(config, settings(instruction="In a word.")) != base
    colder = config.model_copy(update={"reasoner": config.reasoner.model_copy(update={"temperature": 0.5})})
    assert synthesis_identity(colder, settings()) != base
