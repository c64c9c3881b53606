"""Requests that wait when the worker is free share a batch; a lone request never waits."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from serve.batching import FAILURES_UNHEALTHY, Batcher


class Worker:
    """Doubles numbers; holds its first batch until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = threading.Event()

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        assert self.free.wait(10)
        if 13 in numbers:
            raise ZeroDivisionError("13")
        return [2 * n for n in numbers]


async def after_start(batcher: Batcher[int, int], worker: Worker, first: int, others: list[int]) -> list[object]:
    """Replies to a request that is under way while `others` arrive one by one."""
    tasks = [asyncio.create_task(batcher(first))]
    while not worker.batches:
        await asyncio.sleep(0.001)
    for n in others:
        tasks.append(asyncio.create_task(batcher(n)))
        await asyncio.sleep(0.001)
    worker.free.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_requests_that_wait_share_the_next_batches() -> None:
    worker = Worker()
    replies = asyncio.run(after_start(Batcher(worker, max_batch=4), worker, 0, [1, 2, 3, 4, 5, 6]))
    assert replies == [0, 2, 4, 6, 8, 10, 12]
    assert worker.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_a_lone_request_does_not_wait() -> None:
    worker = Worker()
    worker.free.set()

    async def main() -> float:
        batcher = Batcher(worker, max_batch=8)
        await batcher(1)
        start = time.perf_counter()
        for _ in range(50):
            await batcher(1)
        return (time.perf_counter() - start) / 50

    assert asyncio.run(main()) < 0.01


def test_a_failing_batch_fails_its_own_requests_only() -> None:
    worker = Worker()
    replies = asyncio.run(after_start(Batcher(worker, max_batch=2), worker, 0, [1, 13, 3, 4]))
    assert [type(r) for r in replies] == [int, ZeroDivisionError, ZeroDivisionError, int, int]


def test_a_request_whose_user_left_is_not_worked_on() -> None:
    worker = Worker()

    async def main() -> int:
        batcher = Batcher(worker, max_batch=8)
        first = asyncio.create_task(batcher(0))
        while not worker.batches:
            await asyncio.sleep(0.001)
        left, stays = asyncio.create_task(batcher(1)), asyncio.create_task(batcher(2))
        await asyncio.sleep(0.01)
        left.cancel()
        worker.free.set()
        await first
        return await stays

    assert asyncio.run(main()) == 4
    assert worker.batches == [[0], [2]]


def test_unhealthy_after_failures_in_a_row_and_healthy_after_a_success() -> None:
    worker = Worker()
    worker.free.set()

    async def main() -> None:
        batcher = Batcher(worker, max_batch=1)
        for _ in range(FAILURES_UNHEALTHY):
            batcher.check()
            with pytest.raises(ZeroDivisionError):
                await batcher(13)
        with pytest.raises(RuntimeError, match="failed"):
            batcher.check()
        await batcher(1)
        batcher.check()

    asyncio.run(main())
