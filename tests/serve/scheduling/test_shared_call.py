"""Who waits gets the result of a call that began after it came."""

from __future__ import annotations

import asyncio

import pytest

from serve.scheduling.shared_call import SharedCall


def test_callers_share_calls_that_began_after_they_came() -> None:
    starts: list[int] = []
    time = 0

    async def call() -> None:
        starts.append(time)
        await asyncio.sleep(0.02)

    async def caller(shared: SharedCall) -> bool:
        came = time
        await shared()
        return starts[-1] >= came

    async def main() -> list[bool]:
        nonlocal time
        shared = SharedCall(call)
        tasks = []
        for _ in range(20):
            time += 1
            tasks.append(asyncio.ensure_future(caller(shared)))
            await asyncio.sleep(0.005)
        return await asyncio.gather(*tasks)

    assert all(asyncio.run(main()))
    assert 2 <= len(starts) < 20


def test_a_failure_reaches_those_who_wait_and_nobody_else() -> None:
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        if calls == 1:
            raise ValueError("once")

    async def main() -> None:
        shared = SharedCall(call)
        outcomes = await asyncio.gather(shared(), shared(), return_exceptions=True)
        assert [type(o) for o in outcomes] == [ValueError, ValueError]
        await shared()

    asyncio.run(main())
    assert calls == 2


def test_one_who_goes_away_does_not_end_the_call() -> None:
    done = []

    async def call() -> None:
        await asyncio.sleep(0.02)
        done.append(1)

    async def main() -> None:
        shared = SharedCall(call)
        first, second = asyncio.ensure_future(shared()), asyncio.ensure_future(shared())
        await asyncio.sleep(0.005)
        first.cancel()
        await second
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(main())
    assert done == [1]
