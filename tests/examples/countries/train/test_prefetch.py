"""Prefetching changes where inputs are made, not what they are."""

import os
from itertools import islice

import pytest
import torch
from torch import Tensor

from examples.countries.train.prefetch import prefetch


def noise(number: int) -> Tensor:
    return torch.randn(3, generator=torch.Generator().manual_seed(number))


def fail_at_three(number: int) -> int:
    if number == 3:
        raise ValueError("no input for step 3")
    return number


@pytest.mark.parametrize("workers", [0, 2])
def test_values_come_in_the_order_of_their_numbers(workers: int) -> None:
    numbers = [5, 2, 9, 2, *range(20, 40)]
    values = list(prefetch(noise, numbers, workers))
    assert len(values) == len(numbers)
    assert all(torch.equal(value, noise(number)) for value, number in zip(values, numbers, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_surfaces_after_the_values_before_it(workers: int) -> None:
    values = prefetch(fail_at_three, range(5), workers)
    assert list(islice(values, 3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="no input for step 3"):
        next(values)


def test_without_workers_a_value_is_made_here_and_when_it_is_taken() -> None:
    numbers: list[int] = []
    values = prefetch(numbers.append, range(5), 0)
    assert numbers == []
    next(values)
    assert numbers == [0]


def test_workers_are_other_processes() -> None:
    processes = set(prefetch(lambda _: os.getpid(), range(4), 2))
    assert len(processes) == 2
    assert os.getpid() not in processes
