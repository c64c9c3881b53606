"""Attention of the vision tower, one call for all windows of equal length.

The patches of an image attend within windows, and never to another image of the batch. The stock code calls scaled
dot-product attention once per window: thousands of tiny calls per forward pass, which keep a GPU waiting. This module
calls it once per *length* of window that occurs, with the same result. It is registered with transformers as an
attention implementation, so that no forward pass of transformers is copied.

Letters: P patches of all images, H heads, W windows of one length, L its patches, d width of a head.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

# The stock tower passes all windows at once only to implementations whose name has "flash" in it.
NAME = "sdpa_flash_windows"


def group_attention_windows(model: Any) -> None:
    """Makes the vision tower of a Qwen-VL `model` compute equal windows together, in place.

    Flash attention does so itself, and is not replaced.
    """
    if model.config._attn_implementation == "flash_attention_2":
        return
    AttentionInterface.register(NAME, _attention)
    model.model.visual.config._attn_implementation = NAME


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The interface of transformers for attention in windows: query, key, value (1, H, P, d) to (1, P, H, d).

    `cu_seq_lens_q` (windows + 1) holds the first patch of each window, and P.
    """
    assert cu_seq_lens_q is not None
    return grouped_window_attention(query[0], key[0], value[0], cu_seq_lens_q.tolist(), scaling)[None], None


def grouped_window_attention(
    query_HPd: Tensor, key_HPd: Tensor, value_HPd: Tensor, bounds: list[int], scaling: float | None = None
) -> Tensor:
    """Attention (P, H, d) of patches within their windows. Window n has the patches bounds[n] to bounds[n + 1] - 1."""
    starts: dict[int, list[int]] = {}
    for start, end in pairwise(bounds):
        starts.setdefault(end - start, []).append(start)
    starts.pop(0, None)
    device = query_HPd.device
    indices = [torch.tensor(s, device=device)[:, None] + torch.arange(n, device=device) for n, s in starts.items()]
    attended = []
    for index_WL in indices:
        query, key, value = (x[:, index_WL].transpose(0, 1) for x in (query_HPd, key_HPd, value_HPd))  # (W, H, L, d)
        out = scaled_dot_product_attention(query, key, value, scale=scaling)
        attended.append(out.transpose(1, 2).flatten(0, 1))
    order = torch.cat([i.flatten() for i in indices])
    return torch.cat(attended)[order.argsort()]
