"""Idefics3 and SmolVLM: the image in rows and columns of tiles, each between control tokens, and the whole image last.

The longer side is resized to a multiple of a tile's, so a limit of pixels is a number of tiles along that side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL.Image import Image
from torch import Tensor

from comem_ray.config import PixelLimitsConfig
from comem_ray.model.families.chats import idefics3_chat
from comem_ray.model.families.family import (
    LINEARS,
    Family,
    Grid,
    Options,
    Placeholders,
    broken_limits,
    lora_targets,
)

LARGEST_SIDE = 4096  # of an image, in the stock image processor
FAKE, WHOLE = "<fake_token_around_image>", "<global-img>"


def _misfit(processor: Any, settings: Any) -> str | None:
    here, there = processor.max_image_size["longest_edge"], settings.vision_config.image_size
    return None if here == there else f"max_image_size {here}, the vision tower has {there}"


def _options(processor: Any, settings: Any, limits: PixelLimitsConfig, field: str) -> Options:
    side = settings.vision_config.image_size
    if (limits.min or 0) > side * side or (limits.max or side * side) < side * side:
        reason = f"an image has {side} x {side} pixels or a multiple, its longer side is enlarged to what `max` allows"
        raise broken_limits(limits, field, reason)
    if limits.max is None:
        return {}
    return {"size": {"longest_edge": math.isqrt(limits.max) // side * side}}


def _grid(processor: Any, settings: Any, size: tuple[int, int], options: Options) -> Grid:
    """[rows, columns] of tiles; zeros where the image is one tile."""
    if not processor.do_image_splitting:
        return [0, 0]
    width, height = size
    longest = options["size"]["longest_edge"] if options else processor.size["longest_edge"]
    longer, ratio = min(longest, LARGEST_SIDE), max(size) / min(size)
    shorter = _even(int(longest / ratio)) if longest <= LARGEST_SIDE else int(longer / ratio)
    side = settings.vision_config.image_size
    along = math.ceil(longer / side)
    across = math.ceil(int(along * side / (longer / max(1, shorter))) / side)
    if along == across == 1:
        return [0, 0]
    return [across, along] if width >= height else [along, across]


def _even(number: int) -> int:
    return max(1, number + number % 2)


def _cut(processor: Any, settings: Any, image: Image, options: Options) -> tuple[Tensor, Grid]:
    """Tiles (tiles, 3, side, side) float32, the whole image last, and [rows, columns]."""
    inputs = processor(images=[[image]], return_tensors="pt", return_row_col_info=True, **options)
    return inputs["pixel_values"][0], [inputs["rows"][0][0], inputs["cols"][0][0]]


def _tile_tokens(settings: Any) -> int:
    vision = settings.vision_config
    return (vision.image_size // vision.patch_size) ** 2 // settings.scale_factor**2


def _placeholders(settings: Any, grid: Grid) -> Placeholders:
    rows, columns = grid
    tokens, parts = _tile_tokens(settings), list[int | str]()
    for row in range(1, rows + 1):
        for column in range(1, columns + 1):
            start = "\n" if row > 1 and column == 1 else ""
            parts += [f"{start}{FAKE}<row_{row}_col_{column}>", tokens]
    return [*parts, ("\n\n" if rows else "") + FAKE + WHOLE, tokens, FAKE]


def _features(model: Any, pixels: Tensor, grids: Tensor) -> Sequence[Tensor]:
    (tokens,) = model.model.get_image_features(pixels[None]).pooler_output
    tiles = (grids.prod(dim=1) + 1).tolist()
    return tokens.split([len(tokens) // len(pixels) * count for count in tiles])


IDEFICS3 = Family(
    title="Idefics3",
    image_token="<image>",
    control=(FAKE, WHOLE),
    chat=idefics3_chat,
    language="text_model",
    vision=("vision_model", "connector"),
    tower_layers="vision_model.encoder.layers",
    lora_targets=lora_targets(
        (r"text_model\.layers\.\d+", LINEARS),
        (r"vision_model\.encoder\.layers\.\d+", "q_proj|k_proj|v_proj|out_proj|fc1|fc2"),
        ("connector", "proj"),
    ),
    misfit=_misfit,
    options=_options,
    cut=_cut,
    grid=_grid,
    placeholders=_placeholders,
    features=_features,
)
SMOLVLM = replace(IDEFICS3, title="SmolVLM")
