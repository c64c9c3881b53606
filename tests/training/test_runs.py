"""All that would stop a run is refused before it costs anything."""

import pytest
from support.tiny import write_items
from support.tiny_training import write_samples

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ConfigError
from comem_ray.training.runs import check_run


@pytest.fixture
def make_run(make_config, tmp_path):
    def make(adapter=None, **training):
        fields = {"data": str(tmp_path / "data"), **training}
        path = None if adapter is None else str(adapter)
        config = make_config(root=str(tmp_path / "run"), training=fields, adapter={"path": path})
        if not config.folder("items").exists():
            write_samples(tmp_path / "data", write_items(config.folder("items"), [8]))
        return config

    return make


def test_a_run_that_can_start(make_run, tmp_path):
    checkpoints, steps = check_run(make_run(tmp_path / "adapter", epochs=3, global_batch=4))
    assert checkpoints.latest_step() == 0
    assert steps == 7  # 30 samples in whole batches of 4


def test_an_adapter_of_another_run_is_not_overwritten(make_run, tmp_path):
    (tmp_path / "adapter").mkdir()
    with pytest.raises(ArtifactError, match="holds an adapter that this run did not make"):
        check_run(make_run(tmp_path / "adapter"))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"data": "nowhere"}, ArtifactError, "holds no training sample: run jobs.synthesize"),
        ({"start": "nowhere"}, ConfigError, "is not an adapter folder"),
        ({"validation": {"data": "nowhere"}}, ArtifactError, "holds no training sample"),
    ],
)
def test_missing_data_is_named(make_run, fields, error, message):
    with pytest.raises(error, match=message):
        check_run(make_run(**fields))


def test_a_missing_section_is_named(make_config):
    with pytest.raises(ConfigError, match="field training"):
        check_run(make_config())


def test_validation_by_an_unknown_rule_is_refused_before_training(make_run, tmp_path):
    config = make_run()
    write_samples(tmp_path / "other", write_items(tmp_path / "more", [8]), rule="mine")
    config = make_run(validation={"data": str(tmp_path / "other")})
    with pytest.raises(ConfigError, match=r"field training\.validation\.data: there is no scoring rule 'mine'"):
        check_run(config)
    rules = {"mine": "comem_ray.tasks.rules.vqa:vqa_accuracy"}
    assert check_run(config.model_copy(update={"scoring_rules": rules}))
