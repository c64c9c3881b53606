"""The official figures of sources: one answer alone, and every arm as `comem score` has it."""

from __future__ import annotations

import pytest
from support.published import write_published
from support.scored import card

from comem_ray.config import ConfigError, EvaluationSourceConfig
from comem_ray.evaluation.official import score_alone, score_sources
from comem_ray.evaluation.sources import read_source
from comem_ray.tasks.example import OFFICIAL, Example


def example(rule: str, gold, task: str = "") -> Example:
    return Example("a", "?", None, rule, gold, task=task, own_id="a")


@pytest.mark.parametrize(
    ("rule", "gold", "task", "text", "score"),
    [
        ("exact", ["dog"], "", r"It is \boxed{dog}", 1.0),
        ("exact", ["dog"], "", r"dog \boxed{}", 0.0),  # an empty box is an empty answer
        ("mine", "dog", "", "dogs", 0.5),
        (OFFICIAL, "B", "mrag", "(B) dog", 1.0),
        (OFFICIAL, ["dog"] * 10, "aokvqa", r"dog \boxed{}", 0.0),
        (OFFICIAL, ("Q1", "Lion"), "oven", "lion", None),  # linked to one of all entities
        (OFFICIAL, ["A dog"], "coco", "A dog", None),
    ],
)
def test_one_answer_alone(rule, gold, task, text, score):
    assert score_alone(example(rule, gold, task), text, {"mine": lambda prediction, gold: 0.5}) == score


def test_every_arm_is_scored_as_comem_score_does(tmp_path):
    config = next(EvaluationSourceConfig(**s) for s in write_published(tmp_path) if s["task"] == "mrag")
    source = read_source(config)
    rows = [
        {"data_id": question.data_id, "arm": arm, "prediction": text, "fault": fault, "score": None}
        for arm, texts in (("none", ("A", "B")), ("memory, k=1", ("B", "")))
        for question, text, fault in zip(source.questions, texts, (None, "image_missing"), strict=True)
    ]
    figures = score_sources([config], [source], rows)["mrag"]
    files = [tmp_path / name.rpartition("/")[2] for name in config.paths]
    assert figures["official"]["none"] == card("mrag", files, {"0": "A"}).summary
    assert figures["official"]["memory, k=1"] == card("mrag", files, {"0": "B"}).summary
    assert [row["score"] for row in rows] == [0.0, 0.0, 1.0, 0.0]
    assert (figures["task"], figures["questions"], figures["left_out"]) == ("mrag", 2, 0)
    assert figures["missing_images"]["first"] == [{"data_id": "mrag/1", "reason": "image_missing"}]


def test_titles_that_cannot_be_read_are_a_configuration_error(tmp_path):
    config = next(EvaluationSourceConfig(**s) for s in write_published(tmp_path) if s["task"] == "oven")
    source = read_source(config)
    with pytest.raises(ConfigError, match=r"evaluation\.sources: oven: .*none\.jsonl"):
        score_sources([config.model_copy(update={"titles": str(tmp_path / "none.jsonl")})], [source], [])
