"""Patches embedded by a product are those of the stock convolution."""

import pytest
import torch
from support.tiny import FAMILIES

from comem_ray.model.backbone import load_backbone


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_and_gradients_are_those_of_the_convolution(make_config, family: str) -> None:
    patch_embed = load_backbone(make_config(family).backbone).model.model.visual.patch_embed
    weight = patch_embed.proj.weight.requires_grad_(True)
    patches = torch.randn(37, weight[0].numel(), generator=torch.Generator().manual_seed(0))
    results = []
    for forward in (patch_embed.forward, lambda x: type(patch_embed).forward(patch_embed, x)):
        embedded = forward(patches)
        (gradient,) = torch.autograd.grad(embedded.square().sum(), weight)
        results.append((embedded.detach(), gradient))
    assert patch_embed.forward.__func__ is not type(patch_embed).forward
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)  # sums of 37 patches' gradients
