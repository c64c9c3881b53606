"""The limits on the pixels of an image make a range; the shipped configurations decode as they say."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from comem_ray.config import load_config
from comem_ray.config.model import PixelLimitsConfig


@pytest.mark.parametrize(("low", "high"), [(None, None), (784, None), (None, 784), (784, 784), (1, 2)])
def test_a_range_may_be_open_or_a_single_size(low: int | None, high: int | None) -> None:
    limits = PixelLimitsConfig(min=low, max=high)
    assert (limits.min, limits.max) == (low, high)


def test_an_empty_range_is_refused_with_both_limits() -> None:
    with pytest.raises(ValidationError, match=r"min \(9\) must not exceed max \(4\)"):
        PixelLimitsConfig(min=9, max=4)


def test_the_papers_decoding_is_that_of_the_7b_configuration():
    """The paper's evaluation (arXiv 2505.17670): temperature 0.1, top_p 0.001, penalty 1.05, at most 1,000 tokens."""
    config = load_config("configs/qwen2_5_vl_7b.yaml")
    reasoner = config.reasoner
    assert (reasoner.temperature, reasoner.top_p, reasoner.repetition_penalty) == (0.1, 0.001, 1.05)
    assert reasoner.max_new_tokens == 1_000 <= config.api.max_new_tokens


def test_the_demo_decodes_greedily_and_without_a_penalty():
    reasoner = load_config("configs/demo.yaml").reasoner
    assert (reasoner.temperature, reasoner.repetition_penalty, reasoner.batch_invariant) == (0, 1, False)
