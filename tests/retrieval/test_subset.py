"""Subsets of an index's items, as bits."""

import numpy as np
import pytest

from comem_ray.retrieval.subset import Subset


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 200])
def test_a_subset_without_some_items_is_the_set_difference(size):
    rng = np.random.default_rng(size)
    mask = rng.random(size) < 0.6
    subset = Subset.of(mask)
    assert subset.count == mask.sum()
    removed = np.flatnonzero(rng.random(size) < 0.4)
    rest = subset.without(removed)
    mask[removed] = False
    assert rest.count == mask.sum()
    assert [rest.selector.is_member(i) for i in range(size)] == mask.tolist()
    assert subset.without(np.empty(0, np.int64)).count == subset.count
