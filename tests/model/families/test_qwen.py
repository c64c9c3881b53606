"""Patches without pixels are the image processor's; several vectors per image token are taken apart again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from support.tiny import image
from transformers import Qwen2VLImageProcessor

from comem_ray.config import PixelLimitsConfig
from comem_ray.model.families.family import cat_last
from comem_ray.model.families.qwen import QWEN2_VL, QWEN3_VL

SETTINGS = SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2))


@pytest.mark.parametrize("patch", [14, 16])
def test_the_grid_is_that_of_the_pixels(patch: int) -> None:
    processor = Qwen2VLImageProcessor(patch_size=patch)
    options = QWEN2_VL.options(processor, SETTINGS, PixelLimitsConfig(min=1_000, max=20_000), "item_pixels")
    for size in [(20, 30), (56, 28), (300, 41), (77, 500)]:
        pixels, grid = QWEN2_VL.cut(processor, SETTINGS, image(0, *size), options)
        assert QWEN2_VL.grid(processor, SETTINGS, size, options) == grid
        assert QWEN2_VL.placeholders(SETTINGS, grid) == [len(pixels) // 4]


def test_one_limit_alone_leaves_the_other_to_the_checkpoint() -> None:
    processor = Qwen2VLImageProcessor(size={"shortest_edge": 3136, "longest_edge": 9999})
    assert QWEN2_VL.options(processor, SETTINGS, PixelLimitsConfig(max=5000), "item_pixels") == {
        "size": {"shortest_edge": 3136, "longest_edge": 5000}
    }


def test_the_vectors_of_the_first_layers_come_apart_as_they_were_joined() -> None:
    vectors = [torch.randn(2, 5, 8) for _ in range(3)]
    inputs = QWEN3_VL.inputs(cat_last(vectors), 8)
    assert torch.equal(inputs["inputs_embeds"], vectors[0])
    assert inputs["visual_pos_masks"].all()
    for layer, given in zip(inputs["deepstack_visual_embeds"], vectors[1:], strict=True):
        assert torch.equal(layer, given.flatten(0, 1))
    assert QWEN3_VL.inputs(vectors[0], 8).keys() == {"inputs_embeds"}  # text alone
