"""Answers of many users on one tiny model: each is what it would be alone, and nobody waits for a long one."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import image

from comem_ray.config import ApiConfig
from comem_ray.model.reasoner import Prompt, Reasoner, make_prompt
from serve.messages import ReasonerReply, ReasonerRequest, Refusal, unpack_memory
from serve.scheduling.answering import AnswerScheduler
from serve.scheduling.health import FAILURES_UNHEALTHY

QUESTION = "Which country is this?"


@pytest.fixture
def reasoner(make_config: Any) -> Reasoner:
    return Reasoner(make_config())


def prompt_of(request: ReasonerRequest) -> Prompt:
    seeds = [image(int(data)) for data in request.images]
    memory = None if request.memory is None else unpack_memory(request.memory)
    return make_prompt(request.question, seeds[0] if seeds else None, request.mode, (), memory, request.max_new_tokens)


@pytest.fixture
def make_scheduler(reasoner: Reasoner) -> Callable[..., AnswerScheduler]:
    def make(**limits: Any) -> AnswerScheduler:
        check = lambda: reasoner.answer([Prompt("?", max_new_tokens=1)])  # noqa: E731
        return AnswerScheduler(reasoner, ApiConfig(**{"max_batch": 4, **limits}), prompt_of, check)

    return make


def request(n: int, tokens: int = 6, **fields: Any) -> ReasonerRequest:
    images = [str(n).encode()] if n % 3 else []
    return ReasonerRequest(f"{QUESTION} {n} " + "really " * (n % 5), images, "none", tokens, **fields)


def alone(reasoner: Reasoner, request: ReasonerRequest) -> str:
    return reasoner.answer([prompt_of(request)])[0].text


async def gather(*calls: Any) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("limits", [{}, {"max_cache_tokens": 200}, {"max_batch": 1}])
def test_each_answer_is_what_it_is_alone(
    reasoner: Reasoner, make_scheduler: Callable[..., AnswerScheduler], limits: dict[str, int]
) -> None:
    """Questions of all lengths that come at random moments."""
    scheduler, rng = make_scheduler(**limits), random.Random(0)
    requests = [request(n, rng.choice([1, 2, 5, 20])) for n in range(24)]

    async def one(request: ReasonerRequest) -> Any:
        await asyncio.sleep(rng.random() / 2)
        return await scheduler.answer(request)

    async def main() -> list[Any]:
        return await gather(*map(one, requests))

    replies = asyncio.run(main())
    assert [r.answer for r in replies] == [alone(reasoner, r) for r in requests]
    assert scheduler.counts == {"waiting": 0, "running": 0, "cells": 0}


def test_a_short_answer_does_not_wait_for_a_long_one(make_scheduler: Callable[..., AnswerScheduler]) -> None:
    scheduler = make_scheduler()

    async def main() -> tuple[int, bool, Any]:
        long = asyncio.ensure_future(scheduler.answer(request(0, 400)))
        await until(lambda: scheduler.steps >= 5)
        before = scheduler.steps
        await scheduler.answer(request(1, 2))
        steps, running = scheduler.steps - before, not long.done()
        return steps, running, await long

    steps, running, long = asyncio.run(main())
    assert running
    assert steps <= 6  # its own two tokens, and those made while the event loop was told
    assert isinstance(long, ReasonerReply)


def test_one_who_goes_away_frees_the_place_within_a_token(make_scheduler: Callable[..., AnswerScheduler]) -> None:
    scheduler = make_scheduler(max_batch=2)

    async def main() -> int:
        calls = [asyncio.ensure_future(scheduler.answer(request(n, 400))) for n in range(4)]  # two run, two wait
        await until(lambda: scheduler.counts["running"] == 2 and scheduler.steps > 3)
        before = scheduler.steps
        for call in calls:
            call.cancel()
        await until(lambda: scheduler.counts == {"waiting": 0, "running": 0, "cells": 0})
        steps = scheduler.steps - before
        assert isinstance(await scheduler.answer(request(1, 2)), ReasonerReply)
        return steps

    assert asyncio.run(main()) <= 2


def test_500_who_go_away_at_once_leave_nothing(make_scheduler: Callable[..., AnswerScheduler]) -> None:
    scheduler = make_scheduler(max_waiting=600)

    async def main() -> None:
        calls = [asyncio.ensure_future(scheduler.answer(request(n, 300))) for n in range(500)]
        await until(lambda: scheduler.counts["running"] == 4)
        for call in calls:
            call.cancel()
        await until(lambda: scheduler.counts == {"waiting": 0, "running": 0, "cells": 0})
        assert len(asyncio.all_tasks()) == 1
        assert isinstance(await scheduler.answer(request(1, 2)), ReasonerReply)

    asyncio.run(main())


@pytest.mark.parametrize("company", [0, 8])
def test_a_deadline_ends_an_answer_that_runs_or_waits(
    make_scheduler: Callable[..., AnswerScheduler], company: int
) -> None:
    scheduler = make_scheduler()

    async def main() -> Any:
        others = [asyncio.ensure_future(scheduler.answer(request(n, 400))) for n in range(company)]
        start = time.monotonic()
        reply = await scheduler.answer(request(1, 400, timeout_s=0.1))
        assert time.monotonic() - start < 2
        for call in others:
            call.cancel()
        return reply

    reply = asyncio.run(main())
    assert isinstance(reply, Refusal)
    assert (reply.type, reply.status) == ("timeout", 504)


def test_a_full_queue_says_when_to_come_again(make_scheduler: Callable[..., AnswerScheduler]) -> None:
    scheduler = make_scheduler(max_batch=1, max_waiting=3)

    async def main() -> list[Any]:
        greedy = [asyncio.ensure_future(scheduler.answer(request(n, 60, caller="a"))) for n in range(12)]
        await until(lambda: scheduler.counts["running"] == 1 and scheduler.counts["waiting"] >= 2)
        return await gather(scheduler.answer(request(1, 2, caller="b")), *greedy)

    modest, *greedy = asyncio.run(main())
    assert isinstance(modest, ReasonerReply)  # another caller's long line does not keep it out
    refused = [reply for reply in greedy if isinstance(reply, Refusal)]
    assert 8 <= len(refused) <= 10  # one runs or two, three wait, and one of these may have left its place
    assert all(r.status == 429 and r.retry_after_s is not None and r.retry_after_s >= 1 for r in refused)


def test_a_question_that_fails_the_model_fails_alone(
    reasoner: Reasoner, make_scheduler: Callable[..., AnswerScheduler]
) -> None:
    """Memory of another width, which no check at the door sees: the model raises for the whole batch."""
    scheduler = make_scheduler()
    poison = ReasonerRequest(QUESTION, [], "memory", 4, memory=np.zeros((1, 4, 3), np.int16))
    requests = [request(n) for n in range(3)]

    async def main() -> list[Any]:
        return await gather(*map(scheduler.answer, [requests[0], poison, *requests[1:]]))

    first, failed, *others = asyncio.run(main())
    assert isinstance(failed, Exception)
    assert [r.answer for r in (first, *others)] == [alone(reasoner, r) for r in requests]
    for _ in range(2 * FAILURES_UNHEALTHY):
        asyncio.run(gather(scheduler.answer(poison)))
    scheduler.check()


@pytest.mark.parametrize(
    "error", [RuntimeError("a kernel failed"), torch.OutOfMemoryError("CUDA out of memory")], ids=["fault", "memory"]
)
@pytest.mark.parametrize("at_step", [1, 4])
def test_a_step_that_fails_costs_no_answer_and_no_piece_twice(
    reasoner: Reasoner, make_scheduler: Callable[..., AnswerScheduler], error: Exception, at_step: int
) -> None:
    scheduler, requests = make_scheduler(), [request(n, 8) for n in range(4)]
    expected = [alone(reasoner, r) for r in requests]
    calls, fails = 0, True

    def fail_once(*_: Any) -> None:
        nonlocal calls, fails
        calls += 1
        if fails and calls > at_step:
            fails = False
            raise error

    pieces: list[list[str]] = [[] for _ in requests]
    hook = reasoner.backbone.model.model.language_model.register_forward_pre_hook(fail_once)

    async def main() -> list[Any]:
        return await gather(*(scheduler.answer(r, p.append) for r, p in zip(requests, pieces, strict=True)))

    replies = asyncio.run(main())
    hook.remove()
    assert not fails
    assert [r.answer for r in replies] == expected
    assert ["".join(p) for p in pieces] == expected


def test_a_model_that_no_longer_works_makes_the_replica_unhealthy(
    reasoner: Reasoner, make_scheduler: Callable[..., AnswerScheduler]
) -> None:
    scheduler = make_scheduler()
    hook = reasoner.backbone.model.model.language_model.register_forward_pre_hook(lambda *_: 1 / 0)
    for _ in range(FAILURES_UNHEALTHY):
        assert isinstance(asyncio.run(gather(scheduler.answer(request(1))))[0], ZeroDivisionError)
    asyncio.run(scheduler.do(lambda: None))  # comes after the last check, which runs after its reply
    with pytest.raises(RuntimeError, match="checks of the model failed"):
        scheduler.check()
    hook.remove()
    assert isinstance(asyncio.run(scheduler.answer(request(1))), ReasonerReply)
    scheduler.check()


def test_numbers_that_are_not_finite_end_their_own_answer(
    reasoner: Reasoner, make_scheduler: Callable[..., AnswerScheduler]
) -> None:
    scheduler, width = make_scheduler(), reasoner.backbone.width
    broken = torch.full((1, 8, width), torch.nan, dtype=torch.bfloat16).view(torch.int16).numpy()
    requests = [replace(request(0), mode="memory", memory=broken), request(2)]

    async def main() -> list[Any]:
        return await gather(*map(scheduler.answer, requests))

    first, second = asyncio.run(main())
    assert isinstance(first, Refusal)
    assert first.type == "not_finite"
    assert second.answer == alone(reasoner, requests[1])


def test_chores_run_between_tokens(make_scheduler: Callable[..., AnswerScheduler]) -> None:
    scheduler, done = make_scheduler(), []

    async def main() -> None:
        long = asyncio.ensure_future(scheduler.answer(request(0, 300)))
        await until(lambda: scheduler.steps > 2)
        await scheduler.do(lambda: done.append(1))
        assert not long.done()
        with pytest.raises(ZeroDivisionError):
            await scheduler.do(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        long.cancel()

    asyncio.run(main())
    assert done == [1]
