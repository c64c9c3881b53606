"""Canvases of tiles: their tokens are those that the stock models make, and limits hold for the canvas."""

from __future__ import annotations

import random
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.tiny import image
from transformers import LlavaNextImageProcessor, LlavaNextModel, LlavaOnevisionConfig, LlavaOnevisionModel
from transformers.image_processing_utils import select_best_resolution

from comem_ray.config import ConfigError, PixelLimitsConfig
from comem_ray.model.families.anyres import LLAVA_NEXT, LLAVA_ONEVISION, fit
from comem_ray.model.random_families import CANVASES, LARGE_CANVASES, RANDOM_FAMILIES

SIDE = 42


def settings(family: str) -> Any:
    parts = RANDOM_FAMILIES[family]
    return parts.config(text_config={**parts.text, "vocab_size": 9}, vision_config=parts.vision, **parts.fields)


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_tokens_are_those_of_the_stock_models(family: str) -> None:
    """Without a vision tower: the stock code packs features of the right number of tiles."""
    record = {"llava_next": LLAVA_NEXT, "llava_onevision": LLAVA_ONEVISION}[family]
    config, sizes = settings(family), [*product((7, 42, 55, 130), (11, 42, 83, 400))]
    model_class = LlavaOnevisionModel if isinstance(config, LlavaOnevisionConfig) else LlavaNextModel
    with torch.device("meta"):
        model = model_class(config)
    for width, height in sizes:
        grid = record.grid(None, config, (width, height), {})
        rows, columns = select_best_resolution((height, width), config.image_grid_pinpoints)
        tiles = 1 + rows * columns // SIDE**2
        arguments = {} if family == "llava_onevision" else {"vision_feature_select_strategy": "default"}
        if family == "llava_onevision":
            arguments["vision_aspect_ratio"] = config.vision_aspect_ratio
        packed, _ = model.pack_image_features(
            [torch.zeros(tiles, 9, 64)], torch.tensor([grid]), image_newline=torch.zeros(64), **arguments
        )
        assert record.placeholders(config, grid) == [len(packed[0])], (width, height)


def test_no_canvas_is_larger_than_the_limit() -> None:
    rng = random.Random(0)
    for _ in range(500):
        size = rng.randint(1, 900), rng.randint(1, 900)
        canvases = rng.choice([CANVASES, LARGE_CANVASES])
        most = rng.randint(min(a * b for a, b in canvases), 20_000)
        width, height = fit(size, canvases, None, most)
        rows, columns = select_best_resolution((height, width), canvases)
        assert rows * columns <= most, (size, most)
        assert width <= size[0]
        assert height <= size[1]


def test_without_limits_an_image_stays_as_it_is_and_a_small_one_can_be_enlarged() -> None:
    assert fit((300, 20), CANVASES, None, None) == (300, 20)
    width, height = fit((30, 20), CANVASES, 6_000, None)
    assert width * height >= 6_000
    assert width / height == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("limits", [PixelLimitsConfig(max=42 * 84 - 1), PixelLimitsConfig(min=84 * 84 + 1)])
def test_limits_beyond_every_canvas_are_refused(limits: PixelLimitsConfig) -> None:
    with pytest.raises(ConfigError, match=r"its canvases have 3528 to 7056 pixels"):
        LLAVA_NEXT.options(None, settings("llava_next"), limits, "item_pixels")


def test_an_image_is_resized_within_its_limits_before_it_is_cut() -> None:
    config, processor = settings("llava_next"), RANDOM_FAMILIES["llava_next"].image_processor()
    options = LLAVA_NEXT.options(processor, config, PixelLimitsConfig(max=42 * 84), "item_pixels")
    pixels, grid = LLAVA_NEXT.cut(processor, config, image(0, 300, 290), options)
    assert pixels.shape == (3, 3, SIDE, SIDE)  # two tiles and the whole image
    assert grid == LLAVA_NEXT.grid(processor, config, (300, 290), options)


def test_other_canvases_do_not_fit() -> None:
    processor = LlavaNextImageProcessor(crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=[[42, 42]])
    assert "image_grid_pinpoints [[42, 42]], config.json has" in str(
        LLAVA_NEXT.misfit(processor, settings("llava_next"))
    )
    other = SimpleNamespace(image_grid_pinpoints=[[42, 42]], vision_config=SimpleNamespace(model_type="pixtral"))
    assert "this one is 'pixtral'" in str(LLAVA_NEXT.misfit(processor, other))
