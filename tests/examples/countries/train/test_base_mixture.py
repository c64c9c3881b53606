"""What the steps of stage base draw."""

from dataclasses import replace
from itertools import chain

import pytest
from support.training_run import load_backbones

from examples.countries.backbone import TOWER
from examples.countries.train.base_mixture import BaseSizes, batch_of
from examples.countries.train.country_samples import CountrySampler
from examples.countries.train.stage_loop import Plan
from examples.countries.train.stages import Run


@pytest.fixture(scope="module")
def sampler(finished: Run) -> CountrySampler:
    return finished.sampler(load_backbones(finished, TOWER)[1])


def test_drills_come_first(sampler: CountrySampler) -> None:
    sizes = replace(BaseSizes(), plan=Plan(steps=200, learning_rate=1e-3))
    kinds = [batch_of(number, sampler, sizes)[0] for number in range(200)]
    assert set(kinds[:50]) == {"read", "pick", "rag"}
    assert set(kinds[50:]) == {"memory", "rag"}


def test_the_right_item_moves_to_the_front_at_the_end(sampler: CountrySampler) -> None:
    sizes = replace(BaseSizes(), plan=Plan(steps=1000, learning_rate=1e-3))

    def share_in_front(steps: range) -> float:
        samples = [s for n in steps for s in chain(*batch_of(n, sampler, sizes)[1]) if len(s.items) == 3]
        return sum(s.right == 0 for s in samples) / len(samples)

    assert share_in_front(range(300, 320)) == pytest.approx(1 / 3, abs=0.13)
    assert share_in_front(range(980, 1000)) == pytest.approx(sizes.first + (1 - sizes.first) / 3, abs=0.13)
