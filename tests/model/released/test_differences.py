"""What LoRA cannot change must be as in the base."""

import pytest
import torch
from safetensors.torch import save_file
from support.release import imported

from comem_ray.artifacts import ArtifactError
from comem_ray.model.random_backbone import write_random_backbone
from comem_ray.model.released.differences import largest_difference
from comem_ray.model.released.shards import stored_tensors


def test_the_largest_difference_in_the_coarser_format(tmp_path):
    weight = torch.randn(40, 30)
    other = weight.clone()
    other[39, 29] += 2
    save_file(
        {"a": weight, "b": weight.bfloat16(), "c": other, "d": weight * torch.nan}, tmp_path / "model.safetensors"
    )
    stored = stored_tensors(tmp_path)
    assert largest_difference(stored["a"], stored["a"]) is None
    assert largest_difference(stored["a"], stored["b"]) is None
    assert largest_difference(stored["a"], stored["c"]) == pytest.approx(2)
    assert largest_difference(stored["b"], stored["c"]) == pytest.approx(2, abs=0.02)
    assert str(largest_difference(stored["a"], stored["d"])) == "nan"


def test_another_base_is_named(release, backbones, tmp_path):
    write_random_backbone(tmp_path / "seed", seed=7)
    with pytest.raises(ArtifactError, match=r"differs from the base in tensors that LoRA does not change .*--base"):
        imported(release[0], tmp_path / "seed", tmp_path / "out")
    with pytest.raises(ArtifactError, match=r"does not fit: .*here it is"):
        imported(release[0], backbones["qwen2_vl"], tmp_path / "out")
    wide = {
        "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2,
        "intermediate_size": 96,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 128}
    write_random_backbone(
        tmp_path / "wide", text=wide, vision=vision | {"window_size": 56, "fullatt_block_indexes": [1]}
    )
    with pytest.raises(ArtifactError, match=r"lm_head.weight is \[263, 64\], want \[263, 128\]"):
        imported(release[0], tmp_path / "wide", tmp_path / "out")
    assert not (tmp_path / "out").exists()
