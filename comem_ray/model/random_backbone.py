"""A backbone of random weights in any shape: a tiny one for tests, the 7B shapes for benchmarks.

Writes an ordinary checkpoint folder (config, safetensors, tokenizer, image processor), which is loaded like a released
one. The tokenizer has one token per byte, and the control tokens of the family's chat format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from comem_ray.model.random_families import RANDOM_FAMILIES, token_ids


def write_random_backbone(
    folder: Path,
    family: str = "qwen2_5_vl",
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes a checkpoint folder of seeded random weights.

    `text` and `vision` are fields of the family's text and vision configuration; None makes tiny ones (width 64, three
    layers). `text["vocab_size"]` may be larger than the number of tokens of the tokenizer (263 for Qwen).
    """
    parts = RANDOM_FAMILIES[family]
    tokenizer = parts.tokenizer()
    text_config = {"vocab_size": len(tokenizer), **(text or parts.text)}
    text_config |= {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    config = parts.config(
        text_config=text_config,
        vision_config=vision or parts.vision,
        **token_ids(parts, tokenizer),
        **parts.fields,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = AutoModelForImageTextToText.from_config(config).to(dtype)
        _enlarge_weights(model)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    parts.image_processor().save_pretrained(folder)


def _enlarge_weights(model: torch.nn.Module) -> None:
    """Draws larger weights than a training starts with, so that every input visibly changes the output in tests."""
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and "embed_tokens" not in name:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
        elif parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=1.0)
