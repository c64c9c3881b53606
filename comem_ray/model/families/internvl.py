"""InternVL: the image in a grid of tiles with the nearest aspect ratio, and the whole image last if there are several.

A limit of pixels is a number of tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from comem_ray.config import PixelLimitsConfig
from comem_ray.model.families.chats import INTERNVL as INTERNVL_CHAT
from comem_ray.model.families.family import (
    LINEARS,
    Family,
    Grid,
    Options,
    Placeholders,
    broken_limits,
    lora_targets,
)
from comem_ray.model.families.llava import tile_side


def _misfit(processor: Any, settings: Any) -> str | None:
    here, there = tile_side(processor), settings.vision_config.image_size[0]
    return None if here == there else f"size {here}, the vision tower has {there}"


def _options(processor: Any, settings: Any, limits: PixelLimitsConfig, field: str) -> Options:
    pixels = math.prod(settings.vision_config.image_size)
    most = processor.max_patches if limits.max is None else limits.max // pixels
    fewest = processor.min_patches if limits.min is None else math.ceil(limits.min / pixels)
    if most < 1 or fewest > most:
        reason = f"an image is cut into tiles of {pixels} pixels, {processor.max_patches} at most by default"
        raise broken_limits(limits, field, reason)
    return {"crop_to_patches": True, "min_patches": fewest, "max_patches": most}


def _grid(processor: Any, settings: Any, size: tuple[int, int], options: Options) -> Grid:
    """[tiles], that of the whole image included."""
    width, height = size
    tile = tuple(settings.vision_config.image_size)
    columns, rows = get_optimal_tiled_canvas((height, width), tile, options["min_patches"], options["max_patches"])
    return [columns * rows + (columns * rows > 1)]


def _cut(processor: Any, settings: Any, image: Image, options: Options) -> tuple[Tensor, Grid]:
    """Tiles (tiles, 3, side, side) float32, the whole image last, and [tiles]."""
    pixels = processor(images=[image], return_tensors="pt", **options)["pixel_values"]
    return pixels, [len(pixels)]


def _placeholders(settings: Any, grid: Grid) -> Placeholders:
    vision = settings.vision_config
    patches = math.prod(side // patch for side, patch in zip(vision.image_size, vision.patch_size, strict=True))
    return [grid[0] * int(patches * settings.downsample_ratio**2)]


def _features(model: Any, pixels: Tensor, grids: Tensor) -> Sequence[Tensor]:
    tiles = model.model.get_image_features(pixels).pooler_output
    return [tokens.flatten(0, 1) for tokens in tiles.split(grids[:, 0].tolist())]


INTERNVL = Family(
    title="InternVL",
    image_token="<IMG_CONTEXT>",
    control=("<img>", "</img>"),
    chat=lambda settings: INTERNVL_CHAT,
    language="language_model",
    vision=("vision_tower", "multi_modal_projector"),
    tower_layers="vision_tower.encoder.layer",
    lora_targets=lora_targets(
        (r"language_model\.layers\.\d+", LINEARS),
        (r"vision_tower\.encoder\.layer\.\d+", "q_proj|k_proj|v_proj|projection_layer|fc1|fc2"),
        ("multi_modal_projector", "linear_1|linear_2"),
    ),
    misfit=_misfit,
    options=_options,
    cut=_cut,
    grid=_grid,
    placeholders=_placeholders,
    features=_features,
)
