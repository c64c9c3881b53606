"""Validation: scores by the samples' own rules, in each mode, without disturbing the training."""

import pytest
from support.tiny import write_items
from support.tiny_training import write_samples

from comem_ray.config import Config, ConfigError
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.reasoner import Reasoner
from comem_ray.training.runs import validation_samples
from comem_ray.training.validation import Validator


@pytest.fixture
def make_validator(make_config, tmp_path):
    """A function (scoring function of the samples' rule, fields of `validation`) -> Validator over ten samples."""

    def make(function: str, **fields) -> tuple[Validator, MemoryEncoder]:
        validation = {"data": str(tmp_path / "data"), "questions": 4, **fields}
        config: Config = make_config(
            root=str(tmp_path / "run"),
            training={"data": str(tmp_path / "data"), "items": 2, "validation": validation},
            scoring_rules={"mine": function},
        )
        if not (tmp_path / "data").exists():
            write_samples(tmp_path / "data", write_items(config.folder("items"), [8]), rule="mine")
        encoder = MemoryEncoder(config)
        reasoner = Reasoner(config, backbone=encoder.backbone)
        return Validator(config, validation_samples(config), encoder, reasoner), encoder

    return make


@pytest.mark.parametrize(("function", "percent"), [("operator:ne", 100.0), ("operator:eq", 0.0)])
def test_every_mode_is_scored_by_the_rule_of_the_samples(make_validator, function, percent):
    # A text differs from a list, so `ne` calls every answer right and `eq` none.
    validator, _ = make_validator(function)
    assert validator.figures() == {"none": percent, "rag": percent, "memory": percent, "n": 4}


def test_only_the_modes_and_as_many_questions_as_configured(make_validator):
    validator, _ = make_validator("operator:ne", modes=["memory"], questions=100)
    assert validator.figures() == {"memory": 100.0, "n": 10}


def test_dropout_is_off_meanwhile_and_on_again_afterwards(make_validator):
    validator, encoder = make_validator("operator:ne", modes=["memory"])
    encoder.adapter.lora.train(True)
    validator.figures()
    assert encoder.adapter.lora.training
    assert encoder.adapter.qformer.training


def test_a_rule_that_is_not_there_is_refused_at_the_start(make_validator):
    with pytest.raises(ConfigError, match="scoring_rules"):
        make_validator("operator:nothing")
