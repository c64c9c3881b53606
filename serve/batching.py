"""Batches across users for work that one thread does: the requests that wait when the thread is free share a batch.

A lone request never waits, and under load batches fill by themselves. `ray.serve.batch` cannot do both, for it closes a
batch before the worker is free. Without a waiting time, every batch of a busy replica holds one request. With a waiting
time, a lone request always waits for its end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

log = logging.getLogger("ray.serve")  # its records carry the request id

Request = TypeVar("Request")
Reply = TypeVar("Reply")

FAILURES_UNHEALTHY = 3  # batches that fail in a row: a GPU in error never recovers within its process


@dataclass
class _Waiting(Generic[Request, Reply]):
    request: Request
    reply: asyncio.Future[Reply]


class Batcher(Generic[Request, Reply]):
    """Calls `run(requests)` in a thread, one batch at a time; `run` returns one reply per request, in their order.

    An exception of `run` goes to every request of its batch.
    """

    def __init__(self, run: Callable[[list[Request]], list[Reply]], max_batch: int):
        self._run, self._max_batch = run, max_batch
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[_Waiting[Request, Reply]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._failures = 0

    async def __call__(self, request: Request, logged: bool = True) -> Reply:
        """The reply to one request, which shares a batch with those that came in the meantime."""
        start = time.perf_counter()
        waiting = _Waiting[Request, Reply](request, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        reply = await waiting.reply
        if logged:
            log.info("done ms=%.1f", (time.perf_counter() - start) * 1e3)
        return reply

    def check(self) -> None:
        """Raises RuntimeError where the last batches all failed."""
        if self._failures >= FAILURES_UNHEALTHY:
            raise RuntimeError(f"the last {self._failures} batches failed")

    async def _work(self) -> None:
        while batch := self._take():
            try:
                replies = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._run, [w.request for w in batch]
                )
                assert len(replies) == len(batch), f"{len(batch)} requests, {len(replies)} replies"
                self._failures = 0
                for waiting, reply in zip(batch, replies, strict=True):
                    if not waiting.reply.done():
                        waiting.reply.set_result(reply)
            except Exception as error:
                self._failures += 1
                for waiting in batch:
                    if not waiting.reply.done():
                        waiting.reply.set_exception(error)
        self._worker = None

    def _take(self) -> list[_Waiting[Request, Reply]]:
        """The next batch; requests whose user went away are left out."""
        batch: list[_Waiting[Request, Reply]] = []
        while self._waiting and len(batch) < self._max_batch:
            waiting = self._waiting.popleft()
            if not waiting.reply.done():
                batch.append(waiting)
        return batch
