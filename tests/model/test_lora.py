"""Where LoRA sits, and that it acts only where it is switched on."""

import pytest
import torch
from support.tiny import FAMILIES
from torch import nn

from comem_ray.artifacts import ArtifactError
from comem_ray.model.backbone import load_backbone
from comem_ray.model.lora import adapter_enabled, add_lora, add_reasoner_lora, load_lora

IDS = torch.arange(20)[None]


@pytest.fixture(params=FAMILIES)
def config(request, make_config):
    return make_config(request.param)


def linears(model: nn.Module) -> set[str]:
    return {name for name, m in model.named_modules() if isinstance(m, nn.Linear)}


def test_on_every_linear_but_lm_head(config):
    model = load_backbone(config.backbone).model
    wanted = linears(model) - {"lm_head"}
    add_lora(model, config.adapter)
    lora_on = {n.removesuffix(".lora_A") for n, m in model.named_modules() if n.endswith(".lora_A")}
    assert lora_on == wanted
    assert any(n.startswith("model.visual.merger") for n in wanted)


def test_trainable_set_is_the_lora(config):
    model = load_backbone(config.backbone).model
    lora = add_lora(model, config.adapter)
    assert not any(p.requires_grad for p in model.parameters())
    with adapter_enabled(lora):
        trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == {n for n, _ in model.named_parameters() if ".lora_" in n}
    assert not any(p.requires_grad for p in model.parameters())


def test_off_is_the_untouched_backbone_bit_for_bit(config):
    model = load_backbone(config.backbone).model
    before = model(input_ids=IDS).logits
    lora = add_lora(model, config.adapter)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.1)
    assert torch.equal(model(input_ids=IDS).logits, before)
    with adapter_enabled(lora):
        assert not torch.allclose(model(input_ids=IDS).logits, before)
    with pytest.raises(RuntimeError, match="inside"), adapter_enabled(lora):
        raise RuntimeError("inside")
    assert torch.equal(model(input_ids=IDS).logits, before)


def test_an_adapter_in_a_pickle_is_not_loaded(config, tmp_path):
    model = load_backbone(config.backbone).model
    add_lora(model, config.adapter).save_pretrained(str(tmp_path))
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ArtifactError, match=r"adapter_model\.safetensors"):
        load_lora(load_backbone(config.backbone).model, tmp_path)


def test_a_second_lora_is_on_wherever_the_first_is_not(config, tmp_path):
    """Off and on are those of two models, each with its own LoRA merged."""
    folders, logits = [tmp_path / "encoder", tmp_path / "reasoner"], []
    for seed, folder in enumerate(folders):
        model = load_backbone(config.backbone).model
        lora = add_lora(model, config.adapter)
        torch.manual_seed(seed)
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                nn.init.normal_(parameter, std=0.1)
        lora.save_pretrained(str(folder))
        lora.eval()
        with adapter_enabled(lora):
            logits.append(model(input_ids=IDS).logits)
    model = load_backbone(config.backbone).model
    lora = load_lora(model, folders[0]).eval()
    for _ in range(2):  # the second time changes nothing
        add_reasoner_lora(lora, folders[1])
        assert torch.equal(model(input_ids=IDS).logits, logits[1])
        with adapter_enabled(lora):
            assert torch.equal(model(input_ids=IDS).logits, logits[0])
        assert torch.equal(model(input_ids=IDS).logits, logits[1])
    assert not any(parameter.requires_grad for parameter in model.parameters())
