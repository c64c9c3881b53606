"""One size of image: limits that hold it are kept, others refused; the tower's tokens are counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import CLIPImageProcessor, SiglipImageProcessor

from comem_ray.config import ConfigError, PixelLimitsConfig
from comem_ray.model.families.llava import LLAVA, tile_misfit, tokens_per_tile


def settings(tower: str = "clip_vision_model", strategy: str = "default") -> Any:
    vision = SimpleNamespace(model_type=tower, image_size=42, patch_size=14)
    return SimpleNamespace(vision_config=vision, vision_feature_select_strategy=strategy)


def test_limits_that_hold_the_one_size_are_kept() -> None:
    for limits in (PixelLimitsConfig(), PixelLimitsConfig(min=42 * 42, max=42 * 42)):
        assert LLAVA.options(None, settings(), limits, "item_pixels") == {}


@pytest.mark.parametrize("limits", [PixelLimitsConfig(max=42 * 42 - 1), PixelLimitsConfig(min=42 * 42 + 1)])
def test_others_are_refused_with_what_to_set(limits: PixelLimitsConfig) -> None:
    message = (
        r"backbone\.item_pixels: .* resizes every image to 42 x 42 pixels\. Set item_pixels to {min: null, max: null}"
    )
    with pytest.raises(ConfigError, match=message):
        LLAVA.options(None, settings(), limits, "item_pixels")


@pytest.mark.parametrize(
    ("tower", "strategy", "tokens"),
    [("clip_vision_model", "default", 9), ("clip_vision_model", "full", 10), ("siglip_vision_model", "full", 9)],
)
def test_the_vector_of_the_whole_image_counts_where_it_is_kept(tower: str, strategy: str, tokens: int) -> None:
    assert tokens_per_tile(settings(tower, strategy)) == tokens


def test_tiles_of_another_size_or_another_tower_do_not_fit() -> None:
    clip = CLIPImageProcessor(crop_size={"height": 42, "width": 42}, size={"shortest_edge": 50})
    siglip = SiglipImageProcessor(size={"height": 56, "width": 56})
    assert tile_misfit(clip, settings()) is None
    assert tile_misfit(siglip, settings("siglip_vision_model")) == "size 56, the vision tower has 42"
    assert "this one is 'pixtral'" in str(tile_misfit(clip, settings("pixtral")))
