"""The LoRA that stage `base` trains: adding it to the language model, and writing it for the merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn

from comem_ray.artifacts import write_atomic

TARGETS = r"model\.language_model\.layers\.\d+\..+_proj"


def add_base_lora(model: Any, rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Adds LoRA layers to the language model, in place and enabled. Returns them by their names in BASE_LORA.

    A ~ N(0, 1/in), seeded; B = 0; scale 1.
    """
    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, bias="none", target_modules=TARGETS)
    lora = get_peft_model(model, config, autocast_adapter_dtype=False)
    parameters = {_stored_name(n): p for n, p in lora.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(n for n in parameters if n.endswith(".lora_A")):
        shape = parameters[name].shape
        with torch.no_grad():
            parameters[name].copy_(torch.randn(shape, generator=generator) * shape[1] ** -0.5)
    return parameters


def _stored_name(name: str) -> str:
    return name.removeprefix("base_model.model.").removesuffix(".default.weight")


def save_base_lora(parameters: dict[str, nn.Parameter], path: Path) -> None:
    """Writes the LoRA as bf16 safetensors, to be merged by `examples.countries.backbone`."""
    stored = {n: p.detach().to("cpu", torch.bfloat16).contiguous() for n, p in parameters.items()}
    write_atomic(path, lambda p: save_file(stored, p))
