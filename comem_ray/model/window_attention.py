"""Attention of the vision tower, windows of equal length together.

An image's patches attend within windows, and images of a batch apart from one another. The stock code calls scaled
dot-product attention once for each window: thousands of tiny calls a pass, and a GPU waits for most of them. Here it is
called once for each *length* of window that occurs; the result is the same. It is registered with transformers as an
implementation of its own, so that no forward pass of the library is copied.

Letters: P patches of all images, H heads, W windows of one length, L its patches, d width of a head.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

# Only to implementations of this name does the stock tower hand all windows at once.
NAME = "sdpa_flash_windows"


def use_window_attention(model: Any) -> None:
    """Has the vision tower of a Qwen2.5-VL or Qwen2-VL `model` take its windows together, in place.

    Flash attention does so itself and is left alone.
    """
    if model.config._attn_implementation == "flash_attention_2":
        return
    AttentionInterface.register(NAME, _attend)
    model.model.visual.config._attn_implementation = NAME


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The library's interface of an attention with windows: query, key, value (1, H, P, d) to (1, P, H, d).

    `cu_seq_lens_q` (windows + 1) are the places where windows begin, and P.
    """
    assert cu_seq_lens_q is not None
    return windowed_attention(query[0], key[0], value[0], cu_seq_lens_q.tolist(), scaling)[None], None


def windowed_attention(
    query_HPd: Tensor, key_HPd: Tensor, value_HPd: Tensor, bounds: list[int], scaling: float | None = None
) -> Tensor:
    """Attention (P, H, d) of patches within their windows; window n is the patches bounds[n] to bounds[n + 1] - 1."""
    starts: dict[int, list[int]] = {}
    for start, end in pairwise(bounds):
        starts.setdefault(end - start, []).append(start)
    starts.pop(0, None)
    device = query_HPd.device
    places = [torch.tensor(s, device=device)[:, None] + torch.arange(n, device=device) for n, s in starts.items()]
    attended = []
    for place_WL in places:
        query, key, value = (x[:, place_WL].transpose(0, 1) for x in (query_HPd, key_HPd, value_HPd))  # (W, H, L, d)
        out = scaled_dot_product_attention(query, key, value, scale=scaling)
        attended.append(out.transpose(1, 2).flatten(0, 1))
    order = torch.cat([p.flatten() for p in places])
    return torch.cat(attended)[order.argsort()]
