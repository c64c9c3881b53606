"""What a step reads is made ahead of it by other processes: where a GPU does the step, the CPU would hold it up.

What a number makes is a function of the number alone, so it does not matter which process makes it. Knows nothing of
what is made.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")


class _Made(Dataset[bytes]):
    def __init__(self, make: Callable[[int], object]):
        self._make = make

    def __getitem__(self, number: int) -> bytes:
        # By value: as tensors they would each take a file descriptor on their way.
        return pickle.dumps(self._make(number))


def made_ahead(make: Callable[[int], T], numbers: Sequence[int], workers: int) -> Iterator[T]:
    """`make(n)` of all numbers, in order, made by so many forked processes, or here where `workers` is 0."""
    if not workers:
        yield from map(make, numbers)
        return
    loader = DataLoader(
        _Made(make),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        multiprocessing_context="fork",  # what they read is large and shared with this process
    )
    for made in loader:
        yield pickle.loads(made)  # of our own processes
