"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: patches of any number, M-RoPE positions on three axes.

The vision tower of Qwen3-VL gives several vectors per image token: one for the input of the language model, and one
for each of its first layers (DeepStack, arXiv 2406.04334). Here they are one vector, n + 1 times as wide, so that an
image token stays one row everywhere: in a prompt, in a cache of images, and on the way between processes.

Letters: T tokens of an image, P patches, D width, n layers with vectors of their own, B sequences, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from comem_ray.config import PixelLimitsConfig
from comem_ray.model.families.chats import QWEN3
from comem_ray.model.families.family import (
    LINEARS,
    Family,
    Grid,
    Options,
    Placeholders,
    cat_last,
    lora_targets,
)
from comem_ray.model.patch_embedding import use_linear_patch_embedding
from comem_ray.model.window_attention import group_attention_windows
from comem_ray.prompts import CHATML

PATCH_FIELDS = {  # of the image processor: of the vision tower
    "patch_size": "patch_size",
    "merge_size": "spatial_merge_size",
    "temporal_patch_size": "temporal_patch_size",
}


def _misfit(processor: Any, settings: Any) -> str | None:
    for own, wanted in PATCH_FIELDS.items():
        here, there = getattr(processor, own, None), getattr(settings.vision_config, wanted)
        if here != there:
            return f"{own} {here}, the vision tower has {there}"
    return None


def _options(processor: Any, settings: Any, limits: PixelLimitsConfig, field: str) -> Options:
    default = processor.size
    size = {
        "shortest_edge": limits.min or default["shortest_edge"],
        "longest_edge": limits.max or default["longest_edge"],
    }
    return {"size": size}


def _cut(processor: Any, settings: Any, image: Image, options: Options) -> tuple[Tensor, Grid]:
    """Patches (P, channels * 2 * patch * patch) float32, and [1, patch rows, patch columns]."""
    patches = processor(images=[image], return_tensors="pt", **options)
    return patches["pixel_values"], patches["image_grid_thw"][0].tolist()


def _grid(processor: Any, settings: Any, size: tuple[int, int], options: Options) -> Grid:
    patch, limits = processor.patch_size, options["size"]
    resized = smart_resize(
        size[1], size[0], patch * processor.merge_size, limits["shortest_edge"], limits["longest_edge"]
    )
    return [1, resized[0] // patch, resized[1] // patch]


def _placeholders(settings: Any, grid: Grid) -> Placeholders:
    return [grid[0] * grid[1] * grid[2] // settings.vision_config.spatial_merge_size**2]


def _features(model: Any, pixels: Tensor, grids: Tensor) -> Sequence[Tensor]:
    return model.model.get_image_features(pixels, grids).pooler_output


def _deepstack_features(model: Any, pixels: Tensor, grids: Tensor) -> Sequence[Tensor]:
    """Image tokens (T, D * (n + 1)): the input vectors, then those of the first layers."""
    encoded = model.model.get_image_features(pixels, grids)
    return [cat_last(vectors) for vectors in zip(encoded.pooler_output, *encoded.deepstack_features, strict=True)]


def _deepstack_inputs(embeds: Tensor, width: int) -> dict[str, Any]:
    """Splits embeddings (B, L, D * (n + 1)). Adding zeros to the layers' states of text changes nothing."""
    first, *layers = embeds.split(width, dim=-1)
    if not layers:
        return {"inputs_embeds": first}
    return {
        "inputs_embeds": first,
        "visual_pos_masks": torch.ones(first.shape[:2], dtype=torch.bool, device=embeds.device),
        "deepstack_visual_embeds": [layer.flatten(0, 1) for layer in layers],
    }


def _positions(model: Any, batch: Any) -> Tensor:
    """M-RoPE positions (3, B, L) by the stock code."""
    positions, _ = model.model.get_rope_index(
        input_ids=batch.input_ids,
        mm_token_type_ids=batch.token_types,
        image_grid_thw=batch.grids,
        attention_mask=batch.attention_mask,
    )
    return positions


def _prepare(model: Any) -> None:
    group_attention_windows(model)
    use_linear_patch_embedding(model)


_SHARED: dict[str, Any] = {
    "image_token": "<|image_pad|>",
    "control": (),
    "language": "language_model",
    "vision": ("visual",),
    "tower_layers": "visual.blocks",
    "misfit": _misfit,
    "options": _options,
    "cut": _cut,
    "grid": _grid,
    "placeholders": _placeholders,
    "positions": _positions,
    "prepare": _prepare,
}
_NAMES = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|qkv|proj|fc1|fc2|mlp\\.0|mlp\\.2"
_TARGETS = rf"model\.(language_model\.layers\.\d+|visual\.blocks\.\d+|visual\.merger)\.(.+\.)?({_NAMES})"

QWEN2_VL = Family(title="Qwen2-VL", chat=lambda settings: CHATML, lora_targets=_TARGETS, features=_features, **_SHARED)
QWEN2_5_VL = replace(QWEN2_VL, title="Qwen2.5-VL")
QWEN3_VL = Family(
    title="Qwen3-VL",
    chat=lambda settings: QWEN3,
    lora_targets=lora_targets(
        (r"language_model\.layers\.\d+", LINEARS),
        (r"visual\.(?:blocks|deepstack_merger_list)\.\d+|visual\.merger", r"qkv|proj|linear_fc1|linear_fc2"),
    ),
    features=_deepstack_features,
    inputs=_deepstack_inputs,
    **_SHARED,
)
