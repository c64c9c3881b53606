"""Patches of images, embedded by a matrix product in place of a convolution.

The stock vision tower embeds patches with a 3-D convolution whose kernel is as large as its stride. So each patch is
embedded by itself, which is one product with the flattened kernel. The product takes a fraction of the time, above all
for the gradient. The weights are not moved or changed, so checkpoints and LoRA stay valid.

Letters: P patches, C their values (colours x frames x rows x columns), W width of the tower.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import Tensor
from torch.nn.functional import linear


def use_linear_patch_embedding(model: Any) -> None:
    """Makes the vision tower of a Qwen-VL `model` embed its patches by a product, in place."""
    patch_embed = model.model.visual.patch_embed
    patch_embed.forward = MethodType(_embed_patches, patch_embed)


def _embed_patches(self: Any, patches_PC: Tensor) -> Tensor:
    """Embeddings (P, W) of patches, in the dtype of the weights."""
    kernel_WC = self.proj.weight.flatten(1)
    return linear(patches_PC.view(-1, kernel_WC.shape[1]).to(kernel_WC.dtype), kernel_WC, self.proj.bias)
