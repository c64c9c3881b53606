"""The base LoRA has no effect at first, and once merged the effect that it had beside the weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from comem_ray.model.backbone import load_backbone
from examples.countries.backbone import BASE_LORA, merge_trained
from examples.countries.train.base_lora import add_base_lora, save_base_lora

RANK = 8


@pytest.fixture
def load(make_config):
    """A function that loads the same tiny model anew."""
    return lambda: load_backbone(make_config().backbone).model


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(input_ids=torch.randint(0, 200, (2, 30), generator=torch.Generator().manual_seed(0))).logits


def test_saved_and_merged_equals_the_model_with_the_lora_on(load, tmp_path: Path) -> None:
    model, merged = load(), load()
    without = logits(model)
    parameters = add_base_lora(model, RANK, 0)
    torch.testing.assert_close(logits(model), without)  # B = 0
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in parameters.items():
            values = 0.1 * torch.randn(p.shape, generator=generator) if name.endswith(".lora_B") else p
            p.copy_(values.bfloat16())  # what the file can hold
    applied = logits(model)
    save_base_lora(parameters, tmp_path / BASE_LORA)
    with torch.no_grad():
        merge_trained(merged, tmp_path)
    assert (applied - without).abs().max() > 0.1
    torch.testing.assert_close(logits(merged), applied, atol=1e-4, rtol=1e-4)


def test_the_file_holds_every_parameter_in_bfloat16(load, tmp_path: Path) -> None:
    parameters = add_base_lora(load(), RANK, 0)
    save_base_lora(parameters, tmp_path / BASE_LORA)
    stored = load_file(tmp_path / BASE_LORA)
    assert stored.keys() == parameters.keys()
    assert all(torch.equal(stored[name], p.bfloat16()) for name, p in parameters.items())


def test_it_is_on_all_linear_layers_of_the_language_model_and_alone_is_trained(load) -> None:
    model = load()
    layers = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".language_model.layers." in n}
    assert len(layers) == 7 * 3
    parameters = add_base_lora(model, RANK, 0)
    assert parameters.keys() == {f"{layer}.lora_{part}" for layer in layers for part in "AB"}
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in parameters.values()}


def test_a_follows_from_the_seed_with_variance_one_over_its_width(load) -> None:
    def matrices(seed: int) -> dict[str, Tensor]:
        return {n: p.detach() for n, p in add_base_lora(load(), RANK, seed).items() if n.endswith(".lora_A")}

    first, same, other = matrices(0), matrices(0), matrices(1)
    assert all(torch.equal(a, same[name]) and not torch.equal(a, other[name]) for name, a in first.items())
    entries = torch.cat([(a * a.shape[1] ** 0.5).flatten() for a in first.values()])
    assert entries.std().item() == pytest.approx(1, abs=0.05)
    assert entries.mean().item() == pytest.approx(0, abs=0.05)
