"""Adapters are saved and loaded without loss; fingerprints tell encoders apart."""

import json

import pytest
import torch
from peft import PeftModel
from support.tiny import image
from torch import nn
from transformers import AutoModelForImageTextToText

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ConfigError
from comem_ray.model.adapter import encoder_fingerprint, save_adapter
from comem_ray.model.checkpoint import checkpoint_fingerprint
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.random_backbone import write_random_backbone

ITEM = ("Title: text", image(3))


@pytest.fixture(scope="module")
def saved(make_config, backbones, tmp_path_factory):
    """A saved adapter whose weights are not the initial ones, and a memory of the encoder it was saved from."""
    config = make_config()
    encoder = MemoryEncoder(config)
    torch.manual_seed(2)
    for name, parameter in encoder.backbone.model.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(folder, encoder.adapter, checkpoint_fingerprint(backbones["qwen2_5_vl"]))
    return folder, encoder.encode([ITEM])


def test_save_load_gives_the_same_memory(saved, make_config):
    folder, memory = saved
    config = make_config(adapter={"path": str(folder), "qformer_layers": 1})  # sizes come from the folder
    assert torch.equal(MemoryEncoder(config).encode([ITEM]), memory)


def test_lora_folder_loads_by_plain_peft(saved, backbones):
    model = AutoModelForImageTextToText.from_pretrained(backbones["qwen2_5_vl"])
    before = model(input_ids=torch.arange(9)[None]).logits
    lora = PeftModel.from_pretrained(model, saved[0] / "lora")
    assert not torch.allclose(lora(input_ids=torch.arange(9)[None]).logits, before)


def test_an_adapter_of_another_backbone_is_refused(saved, make_config, tmp_path):
    write_random_backbone(tmp_path, seed=7)
    config = make_config(backbone={"model": str(tmp_path)}, adapter={"path": str(saved[0])})
    with pytest.raises(ArtifactError, match="was trained on backbone"):
        MemoryEncoder(config)


def test_missing_files_are_named(make_config, tmp_path):
    (tmp_path / "adapter.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"qformer\.safetensors, lora/adapter_config\.json"):
        MemoryEncoder(make_config(adapter={"path": str(tmp_path)}))
    with pytest.raises(ConfigError, match="is not a folder"):
        MemoryEncoder(make_config(backbone={"model": "no/such-model"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ConfigError, match="of type 'llama'"):
        MemoryEncoder(make_config(backbone={"model": str(tmp_path)}))


def test_fingerprint_follows_all_that_a_memory_depends_on(make_config, saved, tmp_path):
    write_random_backbone(tmp_path, seed=7)
    configs = [
        make_config(),
        make_config(adapter={"seed": 1}),
        make_config(adapter={"path": str(saved[0])}),
        make_config(backbone={"model": str(tmp_path)}),
        make_config(backbone={"item_pixels": {"min": 784, "max": 1568}}),
    ]
    assert len({encoder_fingerprint(c) for c in configs}) == len(configs)
    same = make_config(backbone={"precision": "bfloat16", "question_pixels": {}}, reasoner={"item_order": "best_last"})
    assert encoder_fingerprint(same) == encoder_fingerprint(configs[0])
