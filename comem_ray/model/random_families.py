"""A tiny configuration, image processor and tokenizer of each family, for a backbone of random weights.

Only shapes are small. What makes a family is as released: its parts, its control tokens, how it cuts images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import (
    CLIPImageProcessor,
    GotOcr2ImageProcessor,
    Idefics3Config,
    Idefics3ImageProcessor,
    InternVLConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextImageProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    SmolVLMConfig,
    SmolVLMImageProcessor,
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
CANVASES = [[42, 84], [84, 42], [84, 84], [126, 42], [42, 126]]
LARGE_CANVASES = [[42 * rows, 42 * columns] for rows in (1, 2, 3) for columns in (1, 2, 3)]
HALF = [0.5] * 3


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


def _idefics3(config: type, processor: type) -> RandomFamily:
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    control = ["<|im_start|>", "<|im_end|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>"]
    return RandomFamily(
        config,
        lambda: byte_tokenizer([*control, "<global-img>", *tiles], end="<end_of_utterance>", pad="<|im_end|>"),
        lambda: processor(size={"longest_edge": 96}, max_image_size={"longest_edge": 32}),
        {"model_type": "llama", **LAYERS},
        {**TOWER, "patch_size": 8, "image_size": 32},
        {"image_token_id": "<image>"},
        {"scale_factor": 2},
    )


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
        lambda: Qwen2VLImageProcessor(patch_size=16, image_mean=HALF, image_std=HALF),
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
    "llava_next": RandomFamily(
        LlavaNextConfig,
        lambda: spaced_tokenizer(["<image>"], legacy=True),
        lambda: LlavaNextImageProcessor(
            size={"shortest_edge": 42}, crop_size={"height": 42, "width": 42}, image_grid_pinpoints=CANVASES
        ),
        {"model_type": "mistral", "sliding_window": 40, **LAYERS},
        {"model_type": "clip_vision_model", **TOWER, "projection_dim": 16},
        {"image_token_index": "<image>"},
        {"image_grid_pinpoints": CANVASES},
    ),
    "llava_onevision": RandomFamily(
        LlavaOnevisionConfig,
        lambda: byte_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]),
        lambda: LlavaOnevisionImageProcessor(size={"height": 42, "width": 42}, image_grid_pinpoints=LARGE_CANVASES),
        {"model_type": "qwen2", **LAYERS},
        {"model_type": "siglip_vision_model", **TOWER, "vision_use_head": False},
        {"image_token_index": "<image>", "video_token_index": "<video>"},
        {"image_grid_pinpoints": LARGE_CANVASES, "vision_aspect_ratio": "anyres_max_2"},
    ),
    "idefics3": _idefics3(Idefics3Config, Idefics3ImageProcessor),
    "smolvlm": _idefics3(SmolVLMConfig, SmolVLMImageProcessor),
    "internvl": RandomFamily(
        InternVLConfig,
        lambda: byte_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]),
        lambda: GotOcr2ImageProcessor(size={"height": 28, "width": 28}, max_patches=6),
        {"model_type": "qwen2", **LAYERS},
        {**TOWER, "patch_size": [7, 7], "image_size": [28, 28]},
        {"image_token_id": "<IMG_CONTEXT>"},
        {"image_seq_length": 4, "tie_word_embeddings": False},
    ),
}


def token_ids(family: RandomFamily, tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """The fields of the configuration that hold ids of control tokens."""
    return {field: token_id(tokenizer, token) for field, token in family.tokens.items()}
