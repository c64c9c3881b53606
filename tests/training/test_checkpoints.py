"""Checkpoints appear complete, the oldest go, and neither a run nor an adapter of another make is overwritten."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from comem_ray.artifacts import ArtifactError
from comem_ray.config import TrainingConfig
from comem_ray.model.adapter import ADAPTER_FILES, attach_adapter
from comem_ray.model.backbone import load_backbone
from comem_ray.training.checkpoints import MADE_BY, Checkpoints
from comem_ray.training.optimizer import MasterAdamW

IDENTITY = {"backbone": "b" * 64, "seed": 1}


@pytest.fixture(scope="module")
def trained(make_config):
    config = make_config()
    adapter = attach_adapter(config.adapter, load_backbone(config.backbone), trainable=True)
    named = {"proj_in": adapter.qformer.proj_in.weight}
    return adapter, MasterAdamW(named, TrainingConfig(data="none"), steps=10)


def test_a_checkpoint_is_an_adapter_folder_with_the_state(tmp_path, trained):
    folder = Checkpoints(tmp_path, IDENTITY, 2).save(100, *trained)
    assert folder.name == "step-000100"
    assert all((folder / name).is_file() for name in ADAPTER_FILES)
    state = json.loads((folder / "state.json").read_text())
    assert (state["step"], state["identity"]) == (100, IDENTITY)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000100"]  # nothing half-written is left


def test_the_newest_ones_are_kept(tmp_path, trained):
    checkpoints = Checkpoints(tmp_path, IDENTITY, 2)
    assert (checkpoints.latest(), checkpoints.latest_step()) == (None, 0)
    for step in (5, 10, 15):
        checkpoints.save(step, *trained)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000010", "step-000015"]
    assert checkpoints.latest_step() == 15


def test_an_incomplete_folder_does_not_count(tmp_path):
    (tmp_path / "step-000007").mkdir()
    assert Checkpoints(tmp_path, IDENTITY, 2).latest() is None


def test_restore_gives_back_the_parameters_and_the_step(tmp_path, trained):
    adapter, optimizer = trained
    checkpoints = Checkpoints(tmp_path, IDENTITY, 2)
    assert checkpoints.restore(optimizer) == 0
    checkpoints.save(3, adapter, optimizer)
    before = adapter.qformer.proj_in.weight.detach().clone()
    with torch.no_grad():
        adapter.qformer.proj_in.weight.zero_()
    assert checkpoints.restore(optimizer) == 3
    assert torch.equal(adapter.qformer.proj_in.weight, before)


@pytest.mark.parametrize("name", ["optimizer.safetensors", "state.json", *ADAPTER_FILES])
@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path, trained, name, how):
    checkpoints = Checkpoints(tmp_path, IDENTITY, 2)
    checkpoints.save(3, *trained)
    path = checkpoints.save(6, *trained) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    path.write_bytes({"flip": data, "cut": data[:-2], "empty": b""}[how])
    with pytest.raises(ArtifactError, match=r"delete .*step-000006 and run again, .* from step-000003"):
        checkpoints.restore(trained[1])
    shutil.rmtree(path.parents[len(Path(name).parts) - 1])
    assert checkpoints.restore(trained[1]) == 3


def test_the_checkpoints_of_another_run_are_refused_with_the_fields_that_differ(tmp_path, trained):
    Checkpoints(tmp_path, IDENTITY, 2).save(1, *trained)
    other = Checkpoints(tmp_path, {**IDENTITY, "seed": 2}, 2)
    with pytest.raises(ArtifactError, match=r"is of another run \(seed: stored 1, now 2\)"):
        other.refuse_another_run()
    with pytest.raises(ArtifactError, match="is of another run"):
        other.restore(trained[1])


def test_the_published_adapter_names_its_run_and_may_be_replaced_by_it_alone(tmp_path, trained):
    checkpoints, target = Checkpoints(tmp_path / "run", IDENTITY, 2), tmp_path / "adapter"
    checkpoints.refuse_another_target(target)
    checkpoints.save(1, *trained)
    checkpoints.publish(target)
    assert json.loads((target / MADE_BY).read_text()) == IDENTITY
    assert not (target / "optimizer.safetensors").exists()
    checkpoints.refuse_another_target(target)
    with pytest.raises(ArtifactError, match="holds an adapter that this run did not make"):
        Checkpoints(tmp_path / "run", {**IDENTITY, "seed": 2}, 2).refuse_another_target(target)
