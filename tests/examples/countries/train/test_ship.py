"""What ships: the parts of a finished training, in bfloat16, within the limit."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from comem_ray.artifacts import ArtifactError
from examples.countries.backbone import BASE_LORA, TOWER
from examples.countries.prepare import CLIP_FILES
from examples.countries.train import ship as module
from examples.countries.train.ship import ship

LORA = "lora/adapter_model.safetensors"


@pytest.fixture
def run(tmp_path):
    """A finished training of three tensors, and a folder of weights that holds another file."""
    names = (f"run/weights/{TOWER}", f"run/weights/{BASE_LORA}", "a/qformer.safetensors", f"a/{LORA}")
    for path in names:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        save_file({"w": torch.arange(1000).float(), "count": torch.tensor([3])}, tmp_path / path)
    (tmp_path / "a" / "adapter.json").write_text("{}")
    (tmp_path / "a" / "lora" / "adapter_config.json").write_text('{"r": 16, "base_model_name_or_path": "/home/me"}')
    (tmp_path / "a" / "lora" / "README.md").write_text("/home/me")
    (tmp_path / "weights" / "clip").mkdir(parents=True)
    (tmp_path / "weights" / "clip" / "c").write_bytes(b"1" * 100)
    return tmp_path


def test_it_ships_halves(run):
    total = ship(run / "run", run / "a", run / "weights")
    files = [p for p in (run / "weights").rglob("*") if p.is_file()]
    assert total == sum(p.stat().st_size for p in files)
    shipped = load_file(run / "weights" / "adapter" / LORA)
    assert shipped["w"].dtype == torch.bfloat16
    assert shipped["count"].tolist() == [3]
    assert (run / "weights" / "backbone" / TOWER).exists()
    assert not [p for p in files if b"/home/me" in p.read_bytes()]
    assert ship(run / "run", run / "a", run / "weights") == total  # again, in place of the first


def test_a_clip_model_of_the_run_ships_as_it_is(run):
    for name in CLIP_FILES:
        (run / "run" / "clip" / name).parent.mkdir(parents=True, exist_ok=True)
        (run / "run" / "clip" / name).write_bytes(name.encode())
    ship(run / "run", run / "a", run / "weights")
    assert [(run / "weights" / "clip" / n).read_bytes() for n in CLIP_FILES] == [n.encode() for n in CLIP_FILES]


def test_too_much_is_refused_and_nothing_changes(run, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 5000)
    with pytest.raises(ArtifactError, match="the limit is 5,000"):
        ship(run / "run", run / "a", run / "weights")
    assert [p.name for p in (run / "weights").iterdir()] == ["clip"]


def test_an_unfinished_training_is_refused(run):
    (run / "run" / "weights" / TOWER).unlink()
    with pytest.raises(ArtifactError, match=TOWER):
        ship(run / "run", run / "a", run / "weights")
