"""The number of tiles without pixels is the image processor's; limits are numbers of tiles."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.tiny import image
from transformers import GotOcr2ImageProcessor

from comem_ray.config import ConfigError, PixelLimitsConfig
from comem_ray.model.families.internvl import INTERNVL

SETTINGS = SimpleNamespace(vision_config=SimpleNamespace(image_size=[28, 28], patch_size=[7, 7]), downsample_ratio=0.5)
PROCESSOR = GotOcr2ImageProcessor(size={"height": 28, "width": 28}, max_patches=6)
TILE = 28 * 28


@pytest.mark.parametrize(
    ("limits", "tiles"),
    [
        (PixelLimitsConfig(), (1, 6)),
        (PixelLimitsConfig(max=TILE), (1, 1)),
        (PixelLimitsConfig(max=5 * TILE - 1), (1, 4)),
        (PixelLimitsConfig(min=TILE + 1, max=12 * TILE), (2, 12)),
    ],
)
def test_the_grid_is_that_of_the_pixels_and_within_the_limits(
    limits: PixelLimitsConfig, tiles: tuple[int, int]
) -> None:
    options = INTERNVL.options(PROCESSOR, SETTINGS, limits, "item_pixels")
    for size in [(w, h) for w in (5, 28, 61, 200) for h in (9, 28, 57, 171)]:
        pixels, grid = INTERNVL.cut(PROCESSOR, SETTINGS, image(0, *size), options)
        assert INTERNVL.grid(PROCESSOR, SETTINGS, size, options) == grid == [len(pixels)]
        assert INTERNVL.placeholders(SETTINGS, grid) == [4 * grid[0]]
        assert tiles[0] <= grid[0] - (grid[0] > 1) <= tiles[1]


@pytest.mark.parametrize("limits", [PixelLimitsConfig(max=TILE - 1), PixelLimitsConfig(min=7 * TILE)])
def test_limits_that_no_number_of_tiles_keeps_are_refused(limits: PixelLimitsConfig) -> None:
    with pytest.raises(ConfigError, match=r"tiles of 784 pixels, 6 at most by default\. Set question_pixels to"):
        INTERNVL.options(PROCESSOR, SETTINGS, limits, "question_pixels")


def test_another_size_of_tiles_does_not_fit() -> None:
    other = SimpleNamespace(vision_config=SimpleNamespace(image_size=[448, 448]))
    assert INTERNVL.misfit(PROCESSOR, SETTINGS) is None
    assert INTERNVL.misfit(PROCESSOR, other) == "size 28, the vision tower has 448"
