"""Batches across users for work that one thread does: the requests that wait when the thread is free share a batch.

A lone request never waits, and under load batches fill by themselves. `ray.serve.batch` cannot do both, for it closes a
batch before the worker is free. Without a waiting time, every batch of a busy replica holds one request. With a waiting
time, a lone request always waits for its end.

A batch that fails is done again: in halves where memory ran out, one by one otherwise. So a request fails for its own
fault only. Whether the replica is at fault is found out by a check that is known to pass on one that works.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from comem_ray.artifacts import ArtifactError
from serve.metrics import BatchMetrics
from serve.scheduling.health import ReplicaHealth, free_memory, is_out_of_memory

log = logging.getLogger("ray.serve")  # its records carry the request id

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Run = Callable[[list[Request]], Sequence[Reply | Exception]]


@dataclass
class _Waiting(Generic[Request, Reply]):
    request: Request
    reply: asyncio.Future[Reply]


class Batcher(Generic[Request, Reply]):
    """Calls `run(requests)` in a thread, one batch at a time; `run` returns one reply per request, in their order, or
    an exception in the place of one.

    An exception that `run` raises goes to the requests that still fail when they are alone. After a batch in which
    every request failed, `check()` is tried in the same thread (ReplicaHealth). A damaged artifact (ArtifactError) is
    no fault of request or replica.
    """

    def __init__(
        self, run: Callable[[list[Request]], Sequence[Reply | Exception]], max_batch: int, check: Callable[[], object]
    ):
        self._run, self._max_batch, self._health = run, max_batch, ReplicaHealth(check)
        self._metrics = BatchMetrics()
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[_Waiting[Request, Reply]] = deque()
        self._worker: asyncio.Task[None] | None = None

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
        """Raises RuntimeError where the last checks all failed."""
        self._health.require()

    async def _work(self) -> None:
        while batch := self._take():
            outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, self._outcomes, batch)
            for waiting, outcome in zip(batch, outcomes, strict=True):
                if waiting.reply.done():
                    continue
                if isinstance(outcome, Exception):
                    waiting.reply.set_exception(outcome)
                else:
                    waiting.reply.set_result(outcome)
        self._worker = None

    def _take(self) -> list[_Waiting[Request, Reply]]:
        """The next batch; requests whose user went away are left out."""
        batch: list[_Waiting[Request, Reply]] = []
        while self._waiting and len(batch) < self._max_batch:
            waiting = self._waiting.popleft()
            if not waiting.reply.done():
                batch.append(waiting)
        self._metrics.set_waiting(len(self._waiting))
        if batch:
            self._metrics.observe_batch(len(batch))
        return batch

    def _outcomes(self, batch: Sequence[_Waiting[Request, Reply]]) -> list[Reply | Exception]:
        """Replies, or what failed in their place; the replica's health is brought up to date. Runs in the thread."""
        outcomes = self._try(batch)
        errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if len(errors) < len(outcomes):
            self._health.works()
        elif any(not isinstance(error, ArtifactError) for error in errors):
            self._health.doubt()
        return outcomes

    def _try(self, batch: Sequence[_Waiting[Request, Reply]]) -> list[Reply | Exception]:
        outcome = self._attempt(batch)
        if not isinstance(outcome, Exception):
            return list(outcome)
        if len(batch) == 1:
            return [outcome]
        size = len(batch) // 2 if is_out_of_memory(outcome) else 1
        log.warning("a batch of %d failed (%s), in batches of %d now", len(batch), type(outcome).__name__, size)
        # The error's traceback holds what the batch had in memory.
        del outcome
        free_memory()
        parts = [batch[start : start + size] for start in range(0, len(batch), size)]
        return [result for part in parts for result in self._try(part)]

    def _attempt(self, batch: Sequence[_Waiting[Request, Reply]]) -> Sequence[Reply | Exception] | Exception:
        try:
            replies = self._run([waiting.request for waiting in batch])
            assert len(replies) == len(batch), f"{len(batch)} requests, {len(replies)} replies"
            return replies
        except Exception as error:
            return error
