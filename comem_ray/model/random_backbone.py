"""A backbone of random weights in any shape: a tiny one for tests, the 7B shapes for benchmarks.

Writes an ordinary checkpoint folder (config, safetensors, tokenizer, image processor), which is loaded like a released
one. The tokenizer has one token per byte, and the control tokens of the Qwen chat format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
)

Family = Literal["qwen2_5_vl", "qwen2_vl"]

CONTROL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]

TINY_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
}
TINY_VISION: dict[Family, dict[str, Any]] = {
    "qwen2_5_vl": {
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 48,
        "out_hidden_size": 64,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    },
    "qwen2_vl": {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2},
}


def write_random_backbone(
    folder: Path,
    family: Family = "qwen2_5_vl",
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes a checkpoint folder of seeded random weights.

    `text` and `vision` are fields of the family's text and vision configuration; None makes tiny ones (width 64, three
    layers). `text["vocab_size"]` may be larger than the 263 tokens of the tokenizer.
    """
    tokenizer = byte_tokenizer()
    config_class, model_class = _classes(family)
    text_config = {"vocab_size": len(tokenizer), **(text or TINY_TEXT)}
    text_config |= {"bos_token_id": None, "eos_token_id": _id(tokenizer, "<|im_end|>")}
    config = config_class(
        text_config=text_config,
        vision_config=vision or TINY_VISION[family],
        image_token_id=_id(tokenizer, "<|image_pad|>"),
        video_token_id=_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=_id(tokenizer, "<|vision_end|>"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config).to(dtype)
        _enlarge_weights(model)
    model.generation_config.eos_token_id = _id(tokenizer, "<|im_end|>")
    model.generation_config.pad_token_id = _id(tokenizer, "<|endoftext|>")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessor().save_pretrained(folder)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of 256 byte tokens (no merges) and the special tokens CONTROL_TOKENS."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    words = pre_tokenizers.Split(Regex(r"\s+|\S+"), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=1 << 30
    )
    tokenizer.add_special_tokens({"additional_special_tokens": CONTROL_TOKENS})
    return tokenizer


def _classes(family: Family) -> tuple[Any, Any]:
    if family == "qwen2_5_vl":
        return Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    return Qwen2VLConfig, Qwen2VLForConditionalGeneration


def _id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    token_id = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(token_id, int)
    return token_id


def _enlarge_weights(model: torch.nn.Module) -> None:
    """Draws larger weights than a training starts with, so that every input visibly changes the output in tests."""
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and "embed_tokens" not in name:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
        elif parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=1.0)
