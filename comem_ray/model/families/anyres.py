"""LLaVA-NeXT and LLaVA-OneVision: the image on a canvas of tiles, and the whole image as one more tile.

The canvas is one of config.json's `image_grid_pinpoints`: the one that keeps most of the image and wastes least. Tokens
of padding are left out, and a vector for a new line ends each row. LLaVA-OneVision shrinks the grid of tokens where it
is larger than the tiles that `vision_aspect_ratio` names.

Every image is cut into tiles, also several in one prompt, which the stock processor of LLaVA-OneVision shows as one
tile each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL.Image import Image
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution

from comem_ray.config import PixelLimitsConfig
from comem_ray.model.families.chats import ONEVISION, llava_chat
from comem_ray.model.families.family import Family, Grid, Options, Placeholders, broken_limits
from comem_ray.model.families.llava import LLAVA, tile_misfit, tokens_per_tile

Size = tuple[int, int]  # width, height


def _misfit(processor: Any, settings: Any) -> str | None:
    here, there = (sorted(map(list, part.image_grid_pinpoints)) for part in (processor, settings))
    if here != there:
        return f"image_grid_pinpoints {here}, config.json has {there}"
    return tile_misfit(processor, settings)


def _options(processor: Any, settings: Any, limits: PixelLimitsConfig, field: str) -> Options:
    """The limits are those of the canvas, without the tile of the whole image."""
    areas = [height * width for height, width in settings.image_grid_pinpoints]
    if (limits.min or 0) > max(areas) or (limits.max or max(areas)) < min(areas):
        raise broken_limits(limits, field, f"its canvases have {min(areas)} to {max(areas)} pixels")
    return {name: value for name, value in (("min", limits.min), ("max", limits.max)) if value is not None}


def fit(size: Size, canvases: Sequence[Sequence[int]], fewest: int | None, most: int | None) -> Size:
    """The size of an image for which the stock code chooses a canvas (height, width) of at most `most` pixels.

    A smaller image is enlarged to `fewest` pixels first. The aspect ratio is kept.
    """
    width, height = size
    if fewest is not None and width * height < fewest:
        scale = math.sqrt(fewest / (width * height))
        width, height = math.ceil(width * scale), math.ceil(height * scale)
    allowed = [list(c) for c in canvases if most is None or c[0] * c[1] <= most]
    rows, columns = select_best_resolution((height, width), allowed)
    if most is None or (width <= columns and height <= rows):
        return width, height
    # Rounded down, it fits the canvas whole: no larger canvas keeps more of it.
    scale = min(columns / width, rows / height)
    return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))


def _grid(processor: Any, settings: Any, size: Size, options: Options) -> Grid:
    """[height, width] of the image that is cut."""
    width, height = fit(size, settings.image_grid_pinpoints, options.get("min"), options.get("max"))
    return [height, width]


def _cut(processor: Any, settings: Any, image: Image, options: Options) -> tuple[Tensor, Grid]:
    """Tiles (tiles, 3, side, side) float32, the whole image first, and [height, width]."""
    height, width = _grid(processor, settings, image.size, options)
    if (width, height) != image.size:
        image = image.resize((width, height))
    return processor(images=[image], return_tensors="pt")["pixel_values"][0], [height, width]


def _token_rows(settings: Any, grid: Grid) -> tuple[int, int]:
    """Rows and columns of the tokens of the canvas, without those of padding."""
    height, width = grid
    side = settings.vision_config.image_size // settings.vision_config.patch_size
    best = select_best_resolution((height, width), settings.image_grid_pinpoints)
    rows, columns = (side * (pixels // settings.vision_config.image_size) for pixels in best)
    if width / height > columns / rows:
        rows -= 2 * ((rows - int(round(height * (columns / width), 7))) // 2)
    else:
        columns -= 2 * ((columns - int(round(width * (rows / height), 7))) // 2)
    return rows, columns


def _placeholders(settings: Any, grid: Grid) -> Placeholders:
    rows, columns = _token_rows(settings, grid)
    return [tokens_per_tile(settings) + rows * (columns + 1)]


def _shrunk_placeholders(settings: Any, grid: Grid) -> Placeholders:
    rows, columns = _token_rows(settings, grid)
    side = settings.vision_config.image_size // settings.vision_config.patch_size
    tiles = int(settings.vision_aspect_ratio.removeprefix("anyres_max_"))
    ratio = math.sqrt(rows * columns / (tiles * side**2))
    if ratio > 1.1:
        rows, columns = int(rows // ratio), int(columns // ratio)
    return [tokens_per_tile(settings) + rows * (columns + 1)]


def _features(model: Any, pixels: Tensor, grids: Tensor) -> Sequence[Tensor]:
    return model.model.get_image_features(pixels, grids).pooler_output


LLAVA_NEXT = replace(
    LLAVA,
    title="LLaVA-NeXT",
    chat=llava_chat,
    misfit=_misfit,
    options=_options,
    cut=_cut,
    grid=_grid,
    placeholders=_placeholders,
    features=_features,
)
LLAVA_ONEVISION: Family = replace(
    LLAVA_NEXT,
    title="LLaVA-OneVision",
    chat=lambda settings: ONEVISION,
    placeholders=_shrunk_placeholders,
)
