"""The files of an imported adapter."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support.release import released_qformer
from transformers import AutoModelForImageTextToText

from comem_ray.artifacts import ArtifactError
from comem_ray.model.released.folder import write_facts, write_lora, write_qformer
from comem_ray.model.released.names import released_name
from comem_ray.model.released.shards import stored_tensors

MODULE = "model.language_model.layers.1.self_attn.q_proj"


def test_the_lora_loads_by_plain_peft(backbones, tmp_path):
    a, b = torch.randn(4, 64), torch.randn(64, 4)
    write_lora(
        tmp_path / "lora",
        {MODULE: (a, b)},
        {"r": 4, "lora_alpha": 8.0},
        targets=None,
        base="Qwen/Qwen2.5-VL-7B-Instruct",
    )
    settings = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["target_modules"]) == (4, 8.0, [MODULE])
    assert settings["base_model_name_or_path"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    model = AutoModelForImageTextToText.from_pretrained(backbones["qwen2_5_vl"])
    before = model.get_submodule(MODULE).weight.clone()
    merged = PeftModel.from_pretrained(model, tmp_path / "lora").merge_and_unload()
    torch.testing.assert_close(merged.get_submodule(MODULE).weight, before + 2 * b @ a)


def test_the_qformer_has_our_names(tmp_path):
    save_file(released_qformer(dtype=torch.bfloat16), tmp_path / "model.safetensors")
    stored = {released_name(n).name: t for n, t in stored_tensors(tmp_path).items()}
    parameters = write_qformer(tmp_path / "qformer.safetensors", stored)
    tensors = load_file(tmp_path / "qformer.safetensors")
    assert parameters == sum(t.numel() for t in tensors.values())
    assert tensors["queries"].shape == (8, 64)
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}


def test_a_qformer_that_is_not_finite_is_refused(tmp_path):
    tensors = released_qformer()
    tensors["knowledge_processor.proj_in.bias"][3] = torch.nan
    save_file(tensors, tmp_path / "model.safetensors")
    stored = {released_name(n).name: t for n, t in stored_tensors(tmp_path).items()}
    with pytest.raises(ArtifactError, match=r"knowledge_processor\.proj_in.bias holds NaN"):
        write_qformer(tmp_path / "qformer.safetensors", stored)


def test_facts(tmp_path):
    write_facts(tmp_path / "adapter.json", "ab", {"queries": 8}, 16, 32.0)
    assert json.loads((tmp_path / "adapter.json").read_text()) == {
        "backbone": "ab",
        "qformer": {"queries": 8},
        "lora": {"rank": 16, "alpha": 32.0, "use_rslora": False},
    }
