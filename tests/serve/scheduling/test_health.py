"""A replica is unhealthy when its smallest work fails several times in a row, and not before."""

from __future__ import annotations

import pytest
import torch

from serve.scheduling.health import FAILURES_UNHEALTHY, ReplicaHealth, free_memory, is_out_of_memory


def test_only_failures_in_a_row_count() -> None:
    broken = True

    def check() -> None:
        if broken:
            raise RuntimeError("a GPU in error")

    health = ReplicaHealth(check)
    for _ in range(FAILURES_UNHEALTHY - 1):
        health.doubt()
    health.require()
    health.works()  # some request was answered
    for _ in range(FAILURES_UNHEALTHY - 1):
        health.doubt()
    health.require()
    health.doubt()
    with pytest.raises(RuntimeError, match=f"last {FAILURES_UNHEALTHY} checks"):
        health.require()
    broken = False
    health.doubt()
    health.require()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_memory_ran_out(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
    free_memory()
