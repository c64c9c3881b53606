"""A tiny configuration, image processor and tokenizer of each family, for a backbone of random weights.

Only shapes are small. What makes a family is as released: its parts, its control tokens, how it cuts images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
)

from comem_ray.model.random_tokenizers import byte_tokenizer, spaced_tokenizer, token_id

LAYERS: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
}
TINY_TEXT: dict[str, Any] = {
    **LAYERS,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
}
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "patch_size": 14,
    "image_size": 42,
}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@dataclass(frozen=True)
class RandomFamily:
    """What a checkpoint folder of random weights is made of."""

    config: type
    tokenizer: Callable[[], PreTrainedTokenizerFast]
    image_processor: Callable[[], Any]
    text: dict[str, Any]
    vision: dict[str, Any]
    tokens: dict[str, str]  # fields of the configuration: control tokens, whose ids they are
    fields: dict[str, Any]  # further fields of the configuration


def _qwen(config: type, vision: dict[str, Any], processor: Callable[[], Any], text: dict[str, Any]) -> RandomFamily:
    tokens = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return RandomFamily(config, byte_tokenizer, processor, text, vision, tokens, {})


RANDOM_FAMILIES: dict[str, RandomFamily] = {
    "qwen2_5_vl": _qwen(
        Qwen2_5_VLConfig,
        {
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 48,
            "out_hidden_size": 64,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        Qwen2VLImageProcessor,
        TINY_TEXT,
    ),
    "qwen2_vl": _qwen(
        Qwen2VLConfig,
        {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2},
        Qwen2VLImageProcessor,
        TINY_TEXT,
    ),
    "qwen3_vl": _qwen(
        Qwen3VLConfig,
        {
            "depth": 3,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 48,
            "out_hidden_size": 64,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        lambda: Qwen2VLImageProcessor(patch_size=16, **HALF),
        {
            **LAYERS,
            "head_dim": 16,
            "rope_parameters": {**TINY_TEXT["rope_parameters"], "mrope_interleaved": True},
        },
    ),
    "llava": RandomFamily(
        LlavaConfig,
        lambda: spaced_tokenizer(["<image>"]),
        lambda: CLIPImageProcessor(size={"shortest_edge": 42}, crop_size={"height": 42, "width": 42}),
        {"model_type": "llama", **LAYERS},
        {"model_type": "clip_vision_model", **TOWER, "projection_dim": 16},
        {"image_token_index": "<image>"},
        {},
    ),
}


def token_ids(family: RandomFamily, tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """The fields of the configuration that hold ids of control tokens."""
    return {field: token_id(tokenizer, token) for field, token in family.tokens.items()}
