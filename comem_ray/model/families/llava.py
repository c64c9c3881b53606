"""LLaVA-1.5: every image has one size, and a CLIP or SigLIP tower makes a fixed number of tokens of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor

from comem_ray.config import PixelLimitsConfig
from comem_ray.model.families.chats import llava_chat
from comem_ray.model.families.family import (
    LINEARS,
    Family,
    Grid,
    Options,
    Placeholders,
    broken_limits,
    lora_targets,
)

TOWERS = ("clip_vision_model", "siglip_vision_model")
LLAVA_TARGETS = lora_targets(
    (r"language_model\.layers\.\d+", LINEARS),
    (r"vision_tower\.(?:.+\.)?layers\.\d+", "q_proj|k_proj|v_proj|out_proj|fc1|fc2"),
    ("multi_modal_projector", "linear_1|linear_2"),
)


def tile_misfit(processor: Any, settings: Any) -> str | None:
    """The image processor must cut tiles of the size that the tower takes."""
    vision = settings.vision_config
    if vision.model_type not in TOWERS:
        return f"tiles for a vision tower of type {' or '.join(TOWERS)}, this one is {vision.model_type!r}"
    side = tile_side(processor)
    return None if side == vision.image_size else f"size {side}, the vision tower has {vision.image_size}"


def tile_side(processor: Any) -> int | None:
    """Pixels of the side of a tile, as the image processor cuts it."""
    sizes = (getattr(processor, "crop_size", None), processor.size)
    sides = [getattr(size, key, None) for size in sizes for key in ("height", "shortest_edge")]
    return next((side for side in sides if side), None)


def tokens_per_tile(settings: Any) -> int:
    """The tower's vectors of one tile, the CLS vector included where it is kept."""
    vision = settings.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    has_cls, dropped = vision.model_type == "clip_vision_model", settings.vision_feature_select_strategy == "default"
    return patches + has_cls - dropped


def _options(processor: Any, settings: Any, limits: PixelLimitsConfig, field: str) -> Options:
    side = settings.vision_config.image_size
    if (limits.min or 0) > side * side or (limits.max or side * side) < side * side:
        raise broken_limits(limits, field, f"it resizes every image to {side} x {side} pixels")
    return {}


def _cut(processor: Any, settings: Any, image: Image, options: Options) -> tuple[Tensor, Grid]:
    """Pixels (1, 3, side, side) float32, and [tokens]."""
    pixels = processor(images=[image], return_tensors="pt")["pixel_values"]
    return pixels, _grid(processor, settings, image.size, options)


def _grid(processor: Any, settings: Any, size: tuple[int, int], options: Options) -> Grid:
    return [tokens_per_tile(settings)]


def _placeholders(settings: Any, grid: Grid) -> Placeholders:
    return [grid[0]]


def _features(model: Any, pixels: Tensor, grids: Tensor) -> Sequence[Tensor]:
    return model.model.get_image_features(pixels).pooler_output


LLAVA = Family(
    title="LLaVA-1.5",
    image_token="<image>",
    control=(),
    chat=llava_chat,
    language="language_model",
    vision=("vision_tower", "multi_modal_projector"),
    tower_layers="vision_tower.encoder.layers",
    lora_targets=LLAVA_TARGETS,
    misfit=tile_misfit,
    options=_options,
    cut=_cut,
    grid=_grid,
    placeholders=_placeholders,
    features=_features,
)
