"""Requests that wait when the worker is free share a batch; a lone request never waits; a fault stays its request's."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import torch

from comem_ray.artifacts import ArtifactError
from serve.scheduling.batching import Batcher
from serve.scheduling.health import FAILURES_UNHEALTHY, is_out_of_memory


class Worker:
    """Doubles numbers; holds its first batch until it is let go. 13 fails, as does a batch of more than `room`."""

    def __init__(self, room: int = 100, error: Exception | None = None) -> None:
        self.batches: list[list[int]] = []
        self.free, self.room, self.broken, self.checks = threading.Event(), room, False, 0
        self.error = error or ZeroDivisionError("13")

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        assert self.free.wait(10)
        if len(numbers) > self.room:
            raise MemoryError
        if self.broken or 13 in numbers:
            raise self.error
        return [2 * n for n in numbers]

    def check(self) -> None:
        self.checks += 1
        if self.broken:
            raise ZeroDivisionError("broken")


def batcher_of(worker: Worker, max_batch: int = 8) -> Batcher[int, int]:
    return Batcher(worker, max_batch, worker.check)


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
    replies = asyncio.run(after_start(batcher_of(worker, 4), worker, 0, [1, 2, 3, 4, 5, 6]))
    assert replies == [0, 2, 4, 6, 8, 10, 12]
    assert worker.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_a_lone_request_does_not_wait() -> None:
    worker = Worker()
    worker.free.set()

    async def main() -> float:
        batcher = batcher_of(worker)
        await batcher(1)
        start = time.perf_counter()
        for _ in range(50):
            await batcher(1)
        return (time.perf_counter() - start) / 50

    assert asyncio.run(main()) < 0.01


def test_a_failing_request_fails_alone() -> None:
    worker = Worker()
    replies = asyncio.run(after_start(batcher_of(worker, 4), worker, 0, [1, 13, 3, 4, 5]))
    assert [r if isinstance(r, int) else type(r) for r in replies] == [0, 2, ZeroDivisionError, 6, 8, 10]
    assert worker.batches == [[0], [1, 13, 3, 4], [1], [13], [3], [4], [5]]
    assert worker.checks == 0  # others of its batch were answered


def test_a_reply_that_is_an_exception_is_that_requests() -> None:
    async def main() -> list[object]:
        batcher = Batcher[int, int](lambda numbers: [n if n != 13 else ValueError("13") for n in numbers], 8, list)
        return await asyncio.gather(*(batcher(n) for n in (1, 13, 2)), return_exceptions=True)

    assert [r if isinstance(r, int) else type(r) for r in asyncio.run(main())] == [1, ValueError, 2]


@pytest.mark.parametrize("room", [1, 2, 3])
def test_a_batch_that_is_out_of_memory_is_halved_until_it_fits(room: int) -> None:
    worker = Worker(room)
    replies = asyncio.run(after_start(batcher_of(worker), worker, 0, [1, 2, 3, 4, 5, 6, 7, 8]))
    assert replies == [2 * n for n in range(9)]
    assert worker.checks == 0
    assert worker.batches[1:4] == [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4], [1, 2]]


def test_out_of_memory_is_known_by_what_the_libraries_raise() -> None:
    errors = [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:115] DefaultCPUAllocator: can't allocate memory"),
    ]
    assert all(is_out_of_memory(error) for error in errors)
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_request_whose_user_left_is_not_worked_on() -> None:
    worker = Worker()

    async def main() -> int:
        batcher = batcher_of(worker)
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


def test_requests_that_fail_for_themselves_never_make_a_replica_unhealthy() -> None:
    worker = Worker()
    worker.free.set()

    async def main() -> None:
        batcher = batcher_of(worker)
        for _ in range(3 * FAILURES_UNHEALTHY):
            with pytest.raises(ZeroDivisionError):
                await batcher(13)
            batcher.check()

    asyncio.run(main())
    assert worker.checks == 3 * FAILURES_UNHEALTHY


def test_a_broken_model_makes_it_unhealthy_and_a_success_healthy_again() -> None:
    worker = Worker()
    worker.free.set()
    worker.broken = True

    async def main() -> None:
        batcher = batcher_of(worker)
        for n in range(FAILURES_UNHEALTHY):
            batcher.check()
            with pytest.raises(ZeroDivisionError):
                await batcher(n)
        with pytest.raises(RuntimeError, match="the last 3 checks"):
            batcher.check()
        worker.broken = False
        await batcher(1)
        batcher.check()

    asyncio.run(main())


def test_a_damaged_artifact_counts_against_nobody() -> None:
    worker = Worker(error=ArtifactError("items/part-0.parquet is damaged"))
    worker.free.set()
    worker.broken = True

    async def main() -> None:
        batcher = batcher_of(worker)
        for n in range(2 * FAILURES_UNHEALTHY):
            with pytest.raises(ArtifactError):
                await batcher(n)
        batcher.check()

    asyncio.run(main())
    assert worker.checks == 0


def test_every_waiting_request_gets_its_reply_whatever_the_batches_do() -> None:
    worker = Worker(room=2)
    replies = asyncio.run(after_start(batcher_of(worker, 16), worker, 0, [13, *range(1, 12), 13]))
    expected = [0, ZeroDivisionError, *(2 * n for n in range(1, 12)), ZeroDivisionError]
    assert [r if isinstance(r, int) else type(r) for r in replies] == expected
