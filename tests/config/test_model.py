"""The limits on the pixels of an image make a range."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from comem_ray.config.model import PixelLimitsConfig


@pytest.mark.parametrize(("low", "high"), [(None, None), (784, None), (None, 784), (784, 784), (1, 2)])
def test_a_range_may_be_open_or_a_single_size(low: int | None, high: int | None) -> None:
    limits = PixelLimitsConfig(min=low, max=high)
    assert (limits.min, limits.max) == (low, high)


def test_an_empty_range_is_refused_with_both_limits() -> None:
    with pytest.raises(ValidationError, match=r"min \(9\) must not exceed max \(4\)"):
        PixelLimitsConfig(min=9, max=4)
