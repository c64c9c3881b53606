"""A merged checkpoint is a stock one that computes what backbone and LoRA compute."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from support.release import base_weights, write_shards
from transformers import AutoModelForImageTextToText

from comem_ray.artifacts import ArtifactError
from comem_ray.export.hub import export_adapter
from comem_ray.export.merged import write_merged
from comem_ray.model.lora import adapter_enabled
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.reasoner import Reasoner

IDS = torch.arange(9)[None]


def test_the_merged_models_compute_the_same(adapter, tmp_path):
    _, base, config = adapter
    export_adapter(config, tmp_path / "out", merged=True)
    encoder = MemoryEncoder(config)
    Reasoner(config, backbone=encoder.backbone, adapter=encoder.adapter)  # puts the second LoRA on
    model = encoder.backbone.model
    with torch.no_grad():
        reasoner = model(input_ids=IDS).logits
        with adapter_enabled(encoder.adapter.lora):
            encoded = model(input_ids=IDS).logits
        for folder, ours in (("merged", encoded), ("merged_reasoner", reasoner)):
            stock = AutoModelForImageTextToText.from_pretrained(tmp_path / "out" / folder)
            torch.testing.assert_close(stock(input_ids=IDS).logits, ours, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(encoded, reasoner, atol=0.1)
    names = {path.name for path in (tmp_path / "out" / "merged").iterdir()}
    assert names == {path.name for path in base.iterdir()}


def test_shards_keep_their_names_and_precision(backbones, tmp_path):
    base = shutil.copytree(backbones["qwen2_5_vl"], tmp_path / "base")
    weights = {n: t.bfloat16() for n, t in load_file(base / "model.safetensors").items()}
    write_shards(base, weights)
    calls = []
    module = "model.language_model.layers.0.mlp.up_proj"
    a, b = torch.randn(4, 64), torch.randn(96, 4)
    write_merged(tmp_path / "out", base, {module: (a, b)}, 0.5, lambda done, total: calls.append((done, total)))
    assert calls[-1] == (len(weights), len(weights))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in base.iterdir()}
    before, after = base_weights(base), base_weights(tmp_path / "out")
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == [f"{module}.weight"]
    wanted = (before[changed[0]].float() + 0.5 * b @ a).bfloat16()
    assert torch.equal(after[changed[0]], wanted)
    with pytest.raises(ArtifactError, match=r"for a weight of shape \[96, 32\], which is \[96, 64\]"):
        write_merged(tmp_path / "no", base, {module: (a[:, :32], b)}, 0.5, lambda done, total: None)
    assert not (tmp_path / "no").exists()
