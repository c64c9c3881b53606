"""The authors' Q-Former by the formula of docs/method.md, on the tensors of a release as they are named there."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def authors_memory(tensors: dict[str, Tensor], hidden_LD: Tensor, passes: int, heads: int) -> Tensor:
    """Memory (Q, D) of one item's hidden states (L, D), without padding; float32."""
    t = {n.removeprefix("knowledge_processor."): x.float() for n, x in tensors.items() if "knowledge_processor" in n}

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], 1e-5)

    def split(x: Tensor) -> Tensor:  # (T, N * W) -> (N, T, W)
        return x.unflatten(-1, (heads, -1)).transpose(0, 1)

    x = hidden_LD @ t["proj_in.weight"].T + t["proj_in.bias"]
    h = t["latents"][0]
    for _ in range(passes):
        own, queries = norm(x, "layers.0.norm1"), norm(h, "layers.0.norm2")
        q = split(queries @ t["layers.0.to_q.weight"].T)
        keys, values = (torch.cat([own, queries]) @ t["layers.0.to_kv.weight"].T).chunk(2, dim=-1)
        weights = (q @ split(keys).transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        h = h + (weights @ split(values)).transpose(0, 1).flatten(1) @ t["layers.0.to_out.weight"].T
        inner = F.gelu(norm(h, "layers.1.0") @ t["layers.1.1.weight"].T)
        h = h + inner @ t["layers.1.3.weight"].T
    return norm(h @ t["proj_out.weight"].T + t["proj_out.bias"], "norm_out")
