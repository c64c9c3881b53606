"""The grid of an image without its pixels is the image processor's; limits are numbers of tiles."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.tiny import image
from transformers import Idefics3ImageProcessor

from comem_ray.config import ConfigError, PixelLimitsConfig
from comem_ray.model.families.idefics3 import IDEFICS3

SETTINGS = SimpleNamespace(vision_config=SimpleNamespace(image_size=32, patch_size=8), scale_factor=2)
PROCESSOR = Idefics3ImageProcessor(size={"longest_edge": 128}, max_image_size={"longest_edge": 32})
SIZES = [(w, h) for w in (3, 17, 31, 32, 33, 64, 91, 200, 513) for h in (4, 15, 32, 47, 65, 128, 333)]


@pytest.mark.parametrize("limits", [PixelLimitsConfig(), PixelLimitsConfig(max=32 * 32), PixelLimitsConfig(max=10_000)])
def test_the_grid_is_that_of_the_pixels_and_within_the_limits(limits: PixelLimitsConfig) -> None:
    options = IDEFICS3.options(PROCESSOR, SETTINGS, limits, "item_pixels")
    for size in SIZES:
        pixels, grid = IDEFICS3.cut(PROCESSOR, SETTINGS, image(0, *size), options)
        assert IDEFICS3.grid(PROCESSOR, SETTINGS, size, options) == grid, size
        assert pixels.shape == (grid[0] * grid[1] + 1, 3, 32, 32)
        assert max(1, grid[0]) * max(1, grid[1]) * 32 * 32 <= (limits.max or 128 * 128)


def test_without_splitting_every_image_is_one_tile() -> None:
    whole = Idefics3ImageProcessor(max_image_size={"longest_edge": 32}, do_image_splitting=False)
    for size in SIZES[::5]:
        pixels, grid = IDEFICS3.cut(whole, SETTINGS, image(0, *size), {})
        assert (len(pixels), grid, IDEFICS3.grid(whole, SETTINGS, size, {})) == (1, [0, 0], [0, 0])


def test_tiles_stand_in_rows_between_control_tokens() -> None:
    fake = "<fake_token_around_image>"
    assert IDEFICS3.placeholders(SETTINGS, [0, 0]) == [f"{fake}<global-img>", 4, fake]
    assert IDEFICS3.placeholders(SETTINGS, [2, 1]) == [
        *(f"{fake}<row_1_col_1>", 4),
        *(f"\n{fake}<row_2_col_1>", 4),
        *(f"\n\n{fake}<global-img>", 4, fake),
    ]


@pytest.mark.parametrize("limits", [PixelLimitsConfig(max=1023), PixelLimitsConfig(min=1025)])
def test_limits_of_less_than_a_tile_or_from_below_are_refused(limits: PixelLimitsConfig) -> None:
    with pytest.raises(ConfigError, match=r"backbone\.item_pixels: this backbone cannot keep the limits"):
        IDEFICS3.options(PROCESSOR, SETTINGS, limits, "item_pixels")


def test_another_size_of_tiles_does_not_fit() -> None:
    other = SimpleNamespace(vision_config=SimpleNamespace(image_size=64))
    assert IDEFICS3.misfit(PROCESSOR, SETTINGS) is None
    assert IDEFICS3.misfit(PROCESSOR, other) == "max_image_size 32, the vision tower has 64"
