"""Patches of images, embedded by a matrix product.

The stock vision tower embeds patches by a 3-D convolution whose kernel is as large as its step: each patch by itself,
which is one product with the flattened kernel. A convolution takes several times as long for it, its gradient most of
all. The weights stay where they are and what they are, so checkpoints and LoRA see no change.

Letters: P patches, C their values (colours x frames x rows x columns), W width of the tower.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import Tensor
from torch.nn.functional import linear


def use_patch_products(model: Any) -> None:
    """Has the vision tower of a Qwen2.5-VL or Qwen2-VL `model` embed its patches so, in place."""
    patch_embed = model.model.visual.patch_embed
    patch_embed.forward = MethodType(_embed, patch_embed)


def _embed(self: Any, patches_PC: Tensor) -> Tensor:
    """Embeddings (P, W) of patches, in the dtype of the weights."""
    kernel_WC = self.proj.weight.flatten(1)
    return linear(patches_PC.view(-1, kernel_WC.shape[1]).to(kernel_WC.dtype), kernel_WC)
