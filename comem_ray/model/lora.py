"""LoRA on the backbone: its target modules, how it is added, and when it is active.

The encoder is the backbone with the adapter on, the reasoner is the same backbone with it off: one copy of the weights.
CoMEM (arXiv 2505.17670) puts LoRA on every Linear of the language model and of the vision tower (its merger included),
but not on the patch embedding (a convolution), the token embedding or lm_head. The library is PEFT.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from comem_ray.config import AdapterConfig

_NAMES = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|qkv|proj|fc1|fc2|mlp\\.0|mlp\\.2"
TARGETS = rf"model\.(language_model\.layers\.\d+|visual\.blocks\.\d+|visual\.merger)\.(.+\.)?({_NAMES})"
"""Matches whole module names of Qwen2-VL and Qwen2.5-VL."""


def add_lora(model: PreTrainedModel, sizes: AdapterConfig) -> PeftModel:
    """Adds seeded LoRA layers to `model` in place (B = 0: no effect yet), disabled. Freezes everything else."""
    config = LoraConfig(
        r=sizes.lora_rank,
        lora_alpha=sizes.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=sizes.lora_dropout,
        bias="none",
        target_modules=TARGETS,
    )
    with torch.random.fork_rng():
        torch.manual_seed(sizes.seed)
        lora = get_peft_model(model, config, autocast_adapter_dtype=False)
    return _disabled(lora)


def load_lora(model: PreTrainedModel, folder: Path, trainable: bool = False) -> PeftModel:
    """Adds the LoRA layers of a PEFT folder (safetensors only) to `model` in place, disabled."""
    # PEFT would fall back to a pickle if the safetensors file is missing.
    if not (folder / "adapter_model.safetensors").exists():
        raise ValueError(f"{folder} has no adapter_model.safetensors; an adapter in a pickle (.bin) is not loaded")
    lora = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, autocast_adapter_dtype=False)
    return _disabled(lora)


@contextmanager
def adapter_enabled(lora: PeftModel) -> Iterator[None]:
    """The adapter is active within the block only, even if the block raises."""
    tuner: Any = lora.base_model
    tuner.enable_adapter_layers()
    try:
        yield
    finally:
        tuner.disable_adapter_layers()


def _disabled(lora: PeftModel) -> PeftModel:
    tuner: Any = lora.base_model
    tuner.disable_adapter_layers()
    return lora
