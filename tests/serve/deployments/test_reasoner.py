"""The reasoner's replica in this process: images encoded ahead, streams, and what becomes of a request that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import torch
from support.tiny import image, png

from comem_ray.model.reasoner import Prompt, Reasoner
from comem_ray.prompts import Sampling, Turn
from serve.deployments import reasoner as module
from serve.deployments.reasoner import IMAGES_AHEAD, ReasonerDeployment
from serve.messages import Generations, ReasonerReply, ReasonerRequest, Refusal, TurnMessage

QUESTION = "Which country is this?"


@pytest.fixture
def reasoner(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> ReasonerDeployment:
    monkeypatch.setattr(module, "device_of_replica", lambda: "cpu")  # asks Ray, which has no replica here
    return ReasonerDeployment(make_config(), Generations({}))


@pytest.fixture
def passes(reasoner: ReasonerDeployment) -> list[int]:
    """Grows by one with every pass of the vision tower."""
    passes: list[int] = []
    tower = reasoner.model.backbone.model.model.visual
    tower.register_forward_pre_hook(lambda _, args, kwargs: passes.append(1), with_kwargs=True)
    return passes


def test_an_answer_uses_the_image_that_was_encoded_ahead(
    reasoner: ReasonerDeployment, passes: list[int], make_config: Any
) -> None:
    request = ReasonerRequest(QUESTION, [png(1)], "none", 4)

    async def main() -> Any:
        await reasoner.encode_image(png(1))
        before = len(passes)
        ahead = await reasoner.answer(request)
        assert (before, len(passes)) == (1, 1)
        return ahead, await reasoner.answer(request)

    ahead, again = asyncio.run(main())
    assert len(passes) == 2  # the features of an image serve one question
    assert ahead == again
    assert isinstance(ahead, ReasonerReply)
    assert ahead.answer == Reasoner(make_config()).answer([Prompt(QUESTION, image(1), max_new_tokens=4)])[0].text


def test_another_image_ahead_or_a_broken_one_changes_nothing(reasoner: ReasonerDeployment, passes: list[int]) -> None:
    async def main() -> list[Any]:
        await reasoner.encode_image(png(2))
        await reasoner.encode_image(b"not an image")
        requests = [ReasonerRequest(QUESTION, [data], "none", 4) for data in (png(1), b"not an image")]
        return [await reasoner.answer(request) for request in requests]

    valid, broken = asyncio.run(main())
    assert isinstance(valid, ReasonerReply)
    assert isinstance(broken, Refusal)
    assert len(passes) == 2


def test_images_without_a_question_do_not_pile_up(reasoner: ReasonerDeployment) -> None:
    async def main() -> None:
        for seed in range(IMAGES_AHEAD + 4):
            await reasoner.encode_image(png(seed))

    asyncio.run(main())
    assert len(reasoner._features) == IMAGES_AHEAD


def test_a_stream_ends_with_the_whole_answer(reasoner: ReasonerDeployment) -> None:
    request = ReasonerRequest(QUESTION, [png(1)], "none", 12)

    async def main() -> tuple[list[Any], Any]:
        return [piece async for piece in reasoner.stream(request)], await reasoner.answer(request)

    (*pieces, whole), answer = asyncio.run(main())
    assert len(pieces) > 1
    assert "".join(pieces) == whole.answer == answer.answer


def test_a_stream_that_is_left_frees_its_place(reasoner: ReasonerDeployment) -> None:
    async def main() -> None:
        stream: AsyncIterator[Any] = reasoner.stream(ReasonerRequest(QUESTION, [], "none", 1_000))
        assert isinstance(await anext(stream), str)
        await stream.aclose()  # type: ignore[attr-defined]
        for _ in range(2_000):
            if reasoner.scheduler.counts == {"waiting": 0, "running": 0, "cells": 0}:
                return
            await asyncio.sleep(0.005)
        raise AssertionError(reasoner.scheduler.counts)

    asyncio.run(main())


def test_a_conversation_with_its_system_turn_and_sampling(reasoner: ReasonerDeployment) -> None:
    sampling = Sampling(0.9, 0.9, seed=3)
    request = ReasonerRequest(
        "And its capital?",
        [png(2), png(3)],
        "none",
        8,
        system="Be brief.",
        history=[TurnMessage("user", QUESTION, [png(1)]), TurnMessage("assistant", "Peru.")],
        sampling=sampling,
    )
    history = [Turn("user", QUESTION, [image(1)]), Turn("assistant", "Peru.")]
    prompt = Prompt(
        "And its capital?",
        [image(2), image(3)],
        max_new_tokens=8,
        system="Be brief.",
        history=history,
        sampling=sampling,
    )
    reply = asyncio.run(reasoner.answer(request))
    assert isinstance(reply, ReasonerReply)
    assert reply.answer == reasoner.model.answer([prompt])[0].text


@pytest.mark.parametrize("broken", [b"not an image", b""])
def test_an_image_that_cannot_be_read_is_refused(reasoner: ReasonerDeployment, broken: bytes) -> None:
    reply = asyncio.run(reasoner.answer(ReasonerRequest(QUESTION, [broken], "none", 4)))
    assert isinstance(reply, Refusal)
    assert (reply.field, reply.status) == ("image", 422)


def test_no_memory_for_one_request_alone_is_a_refusal(reasoner: ReasonerDeployment) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    hook = reasoner.model.backbone.model.model.language_model.register_forward_pre_hook(fail)
    reply = asyncio.run(reasoner.answer(ReasonerRequest(QUESTION, [], "none", 4)))
    hook.remove()
    assert isinstance(reply, Refusal)
    assert (reply.type, reply.status) == ("out_of_memory", 500)
