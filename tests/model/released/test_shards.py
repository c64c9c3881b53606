"""Files are read and written tensor by tensor; one that is not whole is named with the tensor that is not."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.release import imported, write_shards

from comem_ray.artifacts import ArtifactError
from comem_ray.model.released.shards import stored_tensors, write_tensors


def test_what_is_written_is_what_safetensors_reads(tmp_path):
    tensors = {
        "matrix": torch.randn(7, 5),
        "half": torch.randn(3, 4, 2).bfloat16(),
        "scalar": torch.tensor(3.0, dtype=torch.float64),
        "empty": torch.zeros(0, 4, dtype=torch.float16),
    }
    calls = []
    wanted = {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}
    write_tensors(tmp_path / "model.safetensors", wanted, lambda name: (calls.append(name), tensors[name])[1])
    assert calls == list(tensors)
    read = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(read[name], t) and read[name].dtype == t.dtype for name, t in tensors.items())
    stored = stored_tensors(tmp_path)
    assert {n: (t.shape, t.dtype) for n, t in stored.items()} == wanted
    assert torch.equal(stored["matrix"].read(slice(2, 4)), tensors["matrix"][2:4])
    pieces = [stored["matrix"].read(rows) for rows in stored["matrix"].rows(elements=10)]
    assert [len(piece) for piece in pieces] == [2, 2, 2, 1]
    assert torch.equal(torch.cat(pieces), tensors["matrix"])


def test_a_tensor_of_two_shards_is_refused(tmp_path):
    for n in (1, 2):
        save_file({"x": torch.ones(2), f"y{n}": torch.ones(2)}, tmp_path / f"model-{n}.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"x": "model-1.safetensors", "y1": "model-1.safetensors", "y2": "model-2.safetensors"}}'
    )
    with pytest.raises(
        ArtifactError, match=r"x is in model-1.safetensors and in model-2.safetensors of .*want it once"
    ):
        stored_tensors(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    save_file({"y2": torch.ones(2)}, tmp_path / "model-2.safetensors")
    assert set(stored_tensors(tmp_path)) == {"x", "y1", "y2"}
    save_file({"z": torch.ones(2)}, tmp_path / "model-2.safetensors")
    with pytest.raises(ArtifactError, match=r"says that model-2.safetensors holds y2, which is not there"):
        stored_tensors(tmp_path)
    save_file({"whole": torch.ones(2)}, tmp_path / "model.safetensors")  # goes before shards, as in transformers
    assert set(stored_tensors(tmp_path)) == {"whole"}


def cut(folder: Path) -> None:
    shard = folder / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5000])


def cut_in_the_header(folder: Path) -> None:
    shard = folder / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:300])


def take_away(folder: Path) -> None:
    (folder / "model-00003-of-00003.safetensors").unlink()


def empty(folder: Path) -> None:
    (folder / "model-00001-of-00003.safetensors").write_bytes(b"")


def without_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()


FILE_FAULTS = {
    cut: r"model-00002-of-00003.safetensors is cut short: \S+ of shape \[.*\] ends at byte [\d,]+, the file at",
    cut_in_the_header: "model-00002-of-00003.safetensors is not a whole safetensors file",
    take_away: r"names model-00003-of-00003.safetensors, which is not there: it holds \d+ tensors, the first is \S+;",
    empty: "model-00001-of-00003.safetensors is empty",
    without_index: "has 3 shards, but no model.safetensors.index.json",
}


@pytest.mark.parametrize("damage", FILE_FAULTS, ids=lambda damage: damage.__name__)
def test_files_that_are_not_whole_are_named(damage, release, backbones, tmp_path):
    shutil.copytree(release[0], tmp_path / "release")
    damage(tmp_path / "release")
    with pytest.raises(ArtifactError, match=FILE_FAULTS[damage]):
        imported(tmp_path / "release", backbones["qwen2_5_vl"], tmp_path / "out")
    shutil.copytree(backbones["qwen2_5_vl"], tmp_path / "base")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "model.safetensors").unlink()
    write_shards(tmp_path / "base", weights)
    damage(tmp_path / "base")
    with pytest.raises(ArtifactError, match=FILE_FAULTS[damage]):
        imported(release[0], tmp_path / "base", tmp_path / "out")
    assert not (tmp_path / "out").exists()
