"""A damaged model ends a job with one sentence and its exit code, noticed by the driver or by a worker."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from support.tiny import write_items

from comem_ray.model.adapter import save_adapter
from comem_ray.model.checkpoint import checkpoint_fingerprint
from comem_ray.model.memory_encoder import MemoryEncoder


@pytest.fixture(scope="module")
def adapter(make_config, backbones, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(folder, MemoryEncoder(make_config()).adapter, checkpoint_fingerprint(backbones["qwen2_5_vl"]))
    return folder


def cut_qformer(folder: Path) -> Path:
    path = folder / "qformer.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    return folder


def nan_in_qformer(folder: Path) -> Path:
    path = folder / "qformer.safetensors"
    save_file(load_file(path) | {"queries": torch.full((8, 64), torch.nan)}, path)
    return folder


def a_file(folder: Path) -> Path:
    return folder / "adapter.json"


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (cut_qformer, 3, "qformer.safetensors is not a whole safetensors file"),  # noticed by the driver
        (nan_in_qformer, 3, "qformer.safetensors holds NaN or infinity in float32, tensors: 1"),  # by a worker
        (a_file, 2, "is a file: name the folder of the adapter"),
    ],
)
def test_a_job_ends_with_one_sentence(adapter, make_config, start_job, tmp_path, damage, code, message):
    path = damage(shutil.copytree(adapter, tmp_path / "adapter"))
    config = make_config(root=str(tmp_path / "run"), adapter={"path": str(path)})
    write_items(config.folder("items"), [3])
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    output = start_job("jobs.encode_memory", tmp_path / "run.yaml").finish(code)
    assert message in output
    assert "Traceback" not in output
