"""Updates of known rank come back from merged weights, in every stored format."""

import pytest
import torch

from comem_ray.model.released import low_rank
from comem_ray.model.released.low_rank import FullRank, equal, mantissa_bits, recover

FORMATS = [torch.bfloat16, torch.float16, torch.float32]


def weights(shape, rank, size, seed=0):
    """A base weight, and an update of that rank whose numbers are of standard deviation `size`."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(*shape, generator=generator) / shape[1] ** 0.5
    update = torch.randn(shape[0], rank, generator=generator) @ torch.randn(rank, shape[1], generator=generator)
    return base, update * size / update.std()


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("shape", [(64, 64), (32, 96), (200, 40)])
def test_the_rank_is_that_of_the_update(dtype, shape):
    base, update = weights(shape, 16, 0.05)
    base = base.to(dtype)
    low = recover((base.float() + update).to(dtype), base)
    assert low is not None
    assert (low.rank, low.left.shape[1]) == (16, 16)
    rounding = 1.1 * low.noise + 1e-6 * low.norm  # of the stored weights, and of the factors
    assert low.residual < rounding
    assert (low.left @ low.right - update).norm() < rounding
    assert low.noise < 0.05 * low.norm


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_large_matrices_take_the_randomized_way(dtype, monkeypatch):
    base, update = weights((300, 260), 20, 0.02)
    base = base.to(dtype)
    merged = (base.float() + update).to(dtype)
    exact = recover(merged, base)
    monkeypatch.setattr(low_rank, "EXACT_SIDE", 8)
    monkeypatch.setattr(low_rank, "EXACT_SIZE", 64)
    sketched = recover(merged, base)
    assert exact is not None
    assert sketched is not None
    assert (exact.rank, sketched.rank) == (20, 20)
    torch.testing.assert_close(sketched.left @ sketched.right, exact.left @ exact.right, rtol=0, atol=1e-6)
    assert sketched.residual == pytest.approx(exact.residual, rel=1e-3, abs=1e-6 * exact.norm)
    with pytest.raises(FullRank):  # the sketch grows until it is sure
        recover(torch.randn_like(base), base)


def test_what_is_equal_gives_nothing():
    base, _ = weights((20, 30), 1, 0.1)
    assert recover(base, base) is None
    assert recover(base.bfloat16(), base) is None
    assert equal(base, base.bfloat16())
    assert not equal(base, base + 1)
    small = torch.tensor([1e-9, 1.0]).bfloat16()  # float16 has no 1e-9
    assert equal(small, small.half())


def test_a_weight_of_another_model_is_no_low_rank_update():
    base, update = weights((64, 64), 16, 0.05)
    other, _ = weights((64, 64), 16, 0.05, seed=1)
    with pytest.raises(FullRank) as raised:
        recover(other + update, base)
    assert (raised.value.limit, raised.value.rank > 32) == (32, True)
    forced = recover(other + update, base, rank=4, forced=True)
    assert forced is not None
    assert forced.left.shape == (64, 4)
    assert forced.residual > 0.5 * forced.norm


def test_the_format_that_counts_is_the_narrowest_that_holds_the_numbers():
    """Merged in bfloat16 and saved as float32, a weight has the rounding noise of bfloat16."""
    base, update = weights((64, 64), 16, 0.05)
    merged = (base.bfloat16().float() + update).bfloat16()
    assert [mantissa_bits(w) for w in (merged, merged.float(), merged.half(), base)] == [7, 7, 7, 23]
    low = recover(merged.float(), base.bfloat16().float())
    assert low is not None
    assert low.rank == 16
    coarse = recover(base + update, base.bfloat16())  # of a base of more bits than the one at hand
    assert coarse is not None
    assert coarse.rank == 16


def test_an_update_that_was_rounded_before_it_was_added():
    """PEFT merges in the dtype of the weights: the update itself is rounded to bfloat16 first."""
    base, update = weights((96, 64), 16, 0.05)
    base = base.bfloat16()
    low = recover(base.float() + update.bfloat16().float(), base)
    assert low is not None
    assert low.rank == 16


def test_a_narrow_matrix_has_no_more_rank_than_its_side():
    base, update = weights((6, 40), 6, 0.05)
    low = recover(base + update, base)
    assert low is not None
    assert (low.left.shape, low.right.shape) == ((6, 6), (6, 40))
