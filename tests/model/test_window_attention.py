"""Windows of equal length attended to together give what the stock code gives one by one."""

from itertools import pairwise

import pytest
import torch
from support.tiny import FAMILIES, image
from torch.nn.functional import scaled_dot_product_attention

from comem_ray.model.backbone import load_backbone
from comem_ray.model.window_attention import NAME, grouped_window_attention
from comem_ray.prompts import ImagePart


def test_each_window_on_its_own() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 17, 8)
    bounds = [0, 4, 9, 13, 13, 14, 17]  # four lengths, one of them twice, and an empty window
    expected = [
        scaled_dot_product_attention(query[:, a:b], key[:, a:b], value[:, a:b], scale=0.3).transpose(0, 1)
        for a, b in pairwise(bounds)
    ]
    torch.testing.assert_close(grouped_window_attention(query, key, value, bounds, 0.3), torch.cat(expected))


@pytest.mark.parametrize("family", FAMILIES)
def test_tower_and_its_gradients_are_those_of_the_stock_one(make_config, family: str) -> None:
    backbone = load_backbone(make_config(family).backbone)
    sizes = [(60, 44), (100, 60), (40, 80), (60, 44)]  # windows of many lengths
    parts = [ImagePart(image(n, *size), "item") for n, size in enumerate(sizes)]
    batch = backbone.sequencer.batch([backbone.sequencer.sequence([s]) for s in parts], "right")
    config, weight = backbone.model.model.visual.config, backbone.model.model.visual.patch_embed.proj.weight
    weight.requires_grad_(True)
    results = {}
    for name in ("sdpa", NAME):
        config._attn_implementation = name
        tokens = backbone.image_features(batch)
        assert tokens is not None
        tokens.square().sum().backward()
        results[name] = (tokens.detach(), weight.grad.clone())
        weight.grad = None
    torch.testing.assert_close(results[NAME], results["sdpa"], rtol=1e-5, atol=1e-6)
    assert load_backbone(make_config(family).backbone).model.model.visual.config._attn_implementation == NAME
