"""Rows of a cache that grow, join and leave, against plain lists of columns."""

import random

import pytest
import torch

from comem_ray.model.padded_cache import ROOM, PaddedCache

LAYERS, HEADS, WIDTH = 2, 3, 5


def columns(length: int, seed: int) -> torch.Tensor:
    """A row of random columns (H, length, d)."""
    return torch.randn(HEADS, length, WIDTH, generator=torch.Generator().manual_seed(seed))


def left_padded(rows: list[torch.Tensor], fill: float) -> torch.Tensor:
    longest = max(row.shape[1] for row in rows)
    return torch.stack([torch.nn.functional.pad(row, (0, 0, longest - row.shape[1], 0), value=fill) for row in rows])


def fill(cache: PaddedCache, new: torch.Tensor) -> None:
    """One forward pass: what every layer is given; values are the keys' negatives."""
    for layer in range(LAYERS):
        cache.layers.update(new + layer, -new - layer, layer)


def cache_of(rows: list[torch.Tensor]) -> PaddedCache:
    cache = PaddedCache([row.shape[1] for row in rows])
    fill(cache, left_padded(rows, 0.0))
    return cache


def check(cache: PaddedCache, rows: list[torch.Tensor]) -> None:
    """Each layer holds these rows, at the right end, and the mask says where."""
    assert cache.lengths == [row.shape[1] for row in rows]
    assert cache.cells == len(rows) * max(cache.lengths)
    mask = cache.mask(torch.device("cpu"))
    assert (mask is None) == (len(set(cache.lengths)) == 1)
    for n, layer in enumerate(cache.layers.layers):
        assert layer.get_seq_length() == cache.columns
        for row, key, value, length in zip(rows, layer.keys, layer.values, cache.lengths, strict=True):
            assert torch.equal(key[:, -length:], row + n)
            assert torch.equal(value[:, -length:], -row - n)
        assert layer.keys.isfinite().all()
    if mask is not None:
        assert mask.sum(1).tolist() == cache.lengths
        assert bool(mask[:, -1].all())


@pytest.mark.parametrize("seed", range(10))
def test_rows_that_grow_join_and_leave_at_random(seed):
    choose, number = random.Random(seed), iter(range(10**6))
    rows = [columns(choose.randint(1, 9), next(number)) for _ in range(3)]
    cache = cache_of(rows)
    check(cache, rows)
    for _ in range(60):
        action = choose.choice(["grow", "grow", "grow", "join", "keep"])
        if action == "grow":
            new = [columns(1, next(number)) for _ in rows]
            rows = [torch.cat(pair, 1) for pair in zip(rows, new, strict=True)]
            cache.grow()
            fill(cache, torch.stack(new))
        elif action == "join" and len(rows) < 8:
            more = [columns(choose.randint(1, 30), next(number)) for _ in range(choose.randint(1, 3))]
            rows = rows + more
            cache.join(cache_of(more))
        elif action == "keep":
            kept = sorted(choose.sample(range(len(rows)), choose.randint(1, len(rows))))
            rows = [rows[i] for i in kept]
            cache.keep(kept)
        check(cache, rows)


def test_a_cache_is_copied_once_per_many_tokens():
    rows = [columns(4, 0)]
    cache = cache_of(rows)
    starts = set()
    for _ in range(2 * ROOM):
        cache.grow()
        fill(cache, columns(1, 1)[None])
        starts.add(cache.layers.layers[0].keys.data_ptr())
    assert len(starts) == 2


def test_padding_is_zero_so_that_a_stray_nan_does_not_spread():
    cache = cache_of([columns(2, 0)])
    cache.join(cache_of([columns(6, 1)]))
    assert cache.layers.layers[0].keys[0, :, :4].eq(0).all()


def test_rows_that_leave_free_their_memory():
    cache = cache_of([columns(500, 0), columns(3, 1)])
    cache.keep([1])
    assert cache.layers.layers[0].keys.untyped_storage().nbytes() == 3 * HEADS * WIDTH * 4
