"""The evaluation of the demo's model: its command line and the configurations of its two worlds."""

import argparse

import pytest

from comem_ray.config import load_config
from examples.countries.evaluate import parse_languages, world_config


def test_languages_of_the_command_line() -> None:
    assert parse_languages("en") == ["en"]
    assert parse_languages("en,es,it") == ["en", "es", "it"]
    with pytest.raises(argparse.ArgumentTypeError, match="no questions in 'ja'; want some of en, es, fr, de, it"):
        parse_languages("en,ja")


def test_a_world_is_a_run_of_its_own() -> None:
    config = load_config("configs/demo.yaml", ["evaluation.k=[1]", "evaluation.gold_positions=[2]"])
    world = world_config(config, "real")
    assert world.root == str(config.folder("evaluation") / "real")
    assert world.ingest.sources[0].path == f"{world.root}/source/countries.tsv"
    assert world.evaluation is not None
    assert world.evaluation.questions == f"{world.root}/questions.parquet"
    assert (world.evaluation.k, world.evaluation.gold_positions) == ([1], [2])
    assert world.evaluation.items_language == "question"
    assert world.backbone == config.backbone


def test_without_a_section_the_right_item_is_put_at_three_positions() -> None:
    world = world_config(load_config("configs/demo.yaml"), "invented")
    assert world.evaluation is not None
    assert world.evaluation.gold_positions == [1, 2, 3]
