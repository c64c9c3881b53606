"""Prefetching: other processes make the input of a step ahead of it. On a GPU, the CPU would hold the steps up.

The input of a step is a function of the step's number alone, so it does not matter which process makes it. Knows
nothing of what is made.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")


class _PickledValues(Dataset[bytes]):
    def __init__(self, make: Callable[[int], object]):
        self._make = make

    def __getitem__(self, number: int) -> bytes:
        # By value: as tensors they would each take a file descriptor on their way.
        return pickle.dumps(self._make(number))


def prefetch(make: Callable[[int], T], numbers: Sequence[int], workers: int) -> Iterator[T]:
    """`make(n)` for all numbers, in order, by `workers` forked processes; in this process where `workers` is 0."""
    if not workers:
        yield from map(make, numbers)
        return
    loader = DataLoader(
        _PickledValues(make),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        multiprocessing_context="fork",  # what they read is large and shared with this process
    )
    for value in loader:
        yield pickle.loads(value)  # from our own processes
