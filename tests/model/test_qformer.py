"""The Q-Former against its equations, written out independently, and its invariants."""

import pytest
import torch
from torch.nn import functional as F

from comem_ray.model.qformer import QFormer

B, L, D, Q, HEADS, HEAD_WIDTH = 3, 7, 32, 8, 4, 6


@pytest.fixture
def qformer() -> QFormer:
    torch.manual_seed(0)
    model = QFormer(D, queries=Q, layers=3, heads=HEADS, head_width=HEAD_WIDTH)
    for parameter in model.parameters():  # not the initial values: biases and norms must count too
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.double()


def layer_norm(x, norm):
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    return x * norm.weight + norm.bias


def one_item(m: QFormer, tokens: torch.Tensor) -> torch.Tensor:
    """Equation 1 for the real tokens of one item, head by head, without padding, masks or cached keys."""
    x0 = tokens @ m.proj_in.weight.T + m.proj_in.bias
    h = m.queries
    to_k, to_v = m.to_kv.weight.split(HEADS * HEAD_WIDTH)
    for _ in range(m.layers):
        x, hn = layer_norm(x0, m.norm_x), layer_norm(h, m.norm_h)
        both = torch.cat([x, hn])
        heads = []
        for n in range(HEADS):
            rows = slice(n * HEAD_WIDTH, (n + 1) * HEAD_WIDTH)
            q, k, v = hn @ m.to_q.weight[rows].T, both @ to_k[rows].T, both @ to_v[rows].T
            heads.append((q @ k.T / HEAD_WIDTH**0.5).softmax(-1) @ v)
        h = h + torch.cat(heads, -1) @ m.to_out.weight.T
        norm, up, _, down = m.ffn
        h = h + F.gelu(layer_norm(h, norm) @ up.weight.T) @ down.weight.T
    return layer_norm(h @ m.proj_out.weight.T + m.proj_out.bias, m.norm_out)


def test_equals_the_equation(qformer):
    hidden = torch.randn(B, L, D, dtype=torch.double)
    keep = torch.arange(L)[None] < torch.tensor([L, 4, 1])[:, None]
    memory = qformer(hidden, keep)
    assert memory.shape == (B, Q, D)
    for b in range(B):
        # The softmax is float32 (docs/method.md), so the tolerance is not 1e-12.
        torch.testing.assert_close(memory[b], one_item(qformer, hidden[b][keep[b]]), atol=2e-6, rtol=0)


def test_padding_has_no_influence(qformer):
    hidden = torch.randn(B, L, D, dtype=torch.double)
    keep = torch.arange(L)[None] < torch.tensor([5, 3, 7])[:, None]
    other = torch.where(keep[..., None], hidden, torch.full_like(hidden, 100.0))
    assert torch.equal(qformer(hidden, keep), qformer(other, keep))


def test_size_at_7b():
    with torch.device("meta"):
        model = QFormer(3584)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(180e6, rel=0.01)
    assert model.head_width == 224


def test_initial_values():
    torch.manual_seed(0)
    model = QFormer(256)
    assert model.queries.std().item() == pytest.approx(256**-0.5, rel=0.1)
    assert model.to_q.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not model.proj_in.bias.any()
    assert torch.equal(model.norm_out.weight, torch.ones(256))
