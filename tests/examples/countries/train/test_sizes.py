"""The sizes of the stages."""

import pytest

from examples.countries.train.sizes import SMALL


def test_other_numbers_of_steps() -> None:
    sizes = SMALL.with_steps({"base": 7})
    assert (sizes.base.plan.steps, sizes.vision.plan.steps) == (7, 6)
    with pytest.raises(ValueError, match="'samples' has no steps"):
        SMALL.with_steps({"samples": 7})
