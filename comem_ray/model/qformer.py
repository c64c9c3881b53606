"""The Q-Former: from the hidden states of one knowledge item to its memory, Q vectors of the backbone's width.

Equation 1 of CoMEM (arXiv 2505.17670): H(0) = q, H(l) = Layer(H(l-1), E, V), M = H(L). The L layers share one set of
weights. A layer adds attention (queries from H, keys and values from the concatenation [x; H]) and a feed-forward
network. All layers have the same x and the same weights, so the keys and values of x are computed once.

Shapes: B items, L item tokens, Q queries, D width, N heads, W head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INIT_STD = 0.02
NORM_EPS = 1e-5


class QFormer(nn.Module):
    """Q learned queries that read an item's hidden states through `layers` passes of one shared layer."""

    def __init__(self, width: int, queries: int = 8, layers: int = 8, heads: int = 16, head_width: int | None = None):
        super().__init__()
        head_width = head_width or width // heads
        inner = heads * head_width
        self.layers, self.heads, self.head_width = layers, heads, head_width
        self.queries = nn.Parameter(torch.randn(queries, width) / width**0.5)
        self.proj_in = nn.Linear(width, width)
        self.norm_x = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm_h = nn.LayerNorm(width, eps=NORM_EPS)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)  # rows: keys first, then values
        self.to_out = nn.Linear(inner, width, bias=False)
        self.ffn = nn.Sequential(
            nn.LayerNorm(width, eps=NORM_EPS),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )
        self.proj_out = nn.Linear(width, width)
        self.norm_out = nn.LayerNorm(width, eps=NORM_EPS)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def sizes(self) -> dict[str, int]:
        """The arguments of the constructor, without the width, for a module of the same sizes."""
        names = ("layers", "heads", "head_width")
        return {"queries": len(self.queries), **{name: getattr(self, name) for name in names}}

    def forward(self, hidden_BLD: Tensor, keep_BL: Tensor) -> Tensor:
        """Hidden states (B, L, D) and the mask of real tokens (B, L), bool -> memory (B, Q, D), in the same dtype."""
        x_BLD = self.norm_x(self.proj_in(hidden_BLD))
        kx, vx = self._split(self.to_kv(x_BLD)).chunk(2, dim=1)
        h_BQD = self.queries.to(x_BLD.dtype).expand(x_BLD.shape[0], -1, -1)
        visible = F.pad(keep_BL, (0, h_BQD.shape[1]), value=True)[:, None, None, :]  # H always attends to itself
        for _ in range(self.layers):
            h_BQD = h_BQD + self._attend(self.norm_h(h_BQD), kx, vx, visible)
            h_BQD = h_BQD + self.ffn(h_BQD)
        return self.norm_out(self.proj_out(h_BQD))

    def _attend(self, h_BQD: Tensor, kx: Tensor, vx: Tensor, visible: Tensor) -> Tensor:
        q = self._split(self.to_q(h_BQD))
        kh, vh = self._split(self.to_kv(h_BQD)).chunk(2, dim=1)
        k, v = torch.cat([kx, kh], dim=2), torch.cat([vx, vh], dim=2)
        scores = (q @ k.transpose(-1, -2)).float() * self.head_width**-0.5
        weights = scores.masked_fill(~visible, float("-inf")).softmax(dim=-1).to(v.dtype)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))

    def _split(self, y: Tensor) -> Tensor:
        """(B, T, n*N*W) -> (B, n*N, T, W); along the head axis all keys come before all values."""
        return y.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
