"""Replicas in this process: images encoded ahead, and whose fault it is when a request fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.serving import FinishedRun, row
from support.tiny import image, png

from comem_ray.artifacts import ArtifactError
from comem_ray.finite import NotFinite
from comem_ray.knowledge.images import ImageError
from comem_ray.model.reasoner import Prompt, Reasoner
from serve.deployments import memory_encoder, retriever
from serve.deployments import reasoner as reasoner_module
from serve.deployments.memory_encoder import MemoryEncoderDeployment
from serve.deployments.reasoner import IMAGES_AHEAD, ReasonerDeployment, _AnswerJob
from serve.deployments.retriever import RetrieverDeployment
from serve.http.errors import api_error
from serve.messages import ReasonerReply, ReasonerRequest, Refusal, Search, pack_memory
from serve.scheduling.batching import FAILURES_UNHEALTHY
from serve.start import check_artifacts

QUESTION = "Which country is this?"
SEARCH = Search(row(7)["image"], "Title 7", 3, "image", None, None)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (retriever, memory_encoder, reasoner_module):
        monkeypatch.setattr(module, "device_of_replica", lambda: "cpu")  # asks Ray, which has no replica here


@pytest.fixture
def reasoner(make_config: Any) -> ReasonerDeployment:
    return ReasonerDeployment(make_config(), {})


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
    request = ReasonerRequest(QUESTION, png(1), "none", 4)

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
        requests = [ReasonerRequest(QUESTION, data, "none", 4) for data in (png(1), b"not an image")]
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


def test_a_search_that_cannot_be_answered_does_not_fail_the_others(run: FinishedRun) -> None:
    retriever = RetrieverDeployment(run.config, check_artifacts(run.config))
    searches = [
        SEARCH,
        replace(SEARCH, language="fr"),
        replace(SEARCH, image=b"not an image"),
        replace(SEARCH, image=None),  # with the first one in a call to the model
        replace(SEARCH, by="text"),
    ]
    first, language, broken, without, text = retriever._search(searches)
    assert isinstance(first, list)
    assert first[0][0] == run.ids[7]
    assert isinstance(text, list)
    assert isinstance(broken, Refusal)
    assert (language.type, language.field) == ("nothing_to_search", "language")
    assert (without.type, without.field) == ("nothing_to_search", "image")


def test_a_failing_clip_model_is_our_fault_and_not_the_users(run: FinishedRun) -> None:
    retriever = RetrieverDeployment(run.config, check_artifacts(run.config))
    with torch.no_grad():
        retriever.model._encoder._model.visual.proj.fill_(float("inf"))
    with pytest.raises(NotFinite, match="infinite numbers") as raised:
        asyncio.run(retriever.retrieve(SEARCH))
    assert api_error(raised.value).status_code == 500
    for _ in range(FAILURES_UNHEALTHY):
        with pytest.raises(NotFinite):
            asyncio.run(retriever.retrieve(SEARCH))
    with pytest.raises(RuntimeError, match="checks of the model failed"):
        retriever.check_health()


async def gather(*calls: Any) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


def test_a_question_that_fails_the_model_fails_alone(reasoner: ReasonerDeployment) -> None:
    """Memory of another width, which no check at the door sees: the model raises for the whole batch."""
    wide = np.zeros((1, 4, 3), np.int16)
    valid = [ReasonerRequest(f"{QUESTION} {n}", png(n), "none", 4) for n in range(3)]
    poison = ReasonerRequest(QUESTION, png(9), "memory", 4, memory=wide)
    first, failed, *others = asyncio.run(gather(*map(reasoner.answer, [valid[0], poison, *valid[1:]])))
    assert isinstance(failed, Exception)
    assert [first, *others] == [asyncio.run(reasoner.answer(request)) for request in valid]
    for _ in range(2 * FAILURES_UNHEALTHY):
        asyncio.run(gather(reasoner.answer(poison)))
    reasoner.check_health()


def test_a_stream_in_a_failing_batch_gets_each_piece_once(reasoner: ReasonerDeployment) -> None:
    """The batch fails in the middle of decoding, when pieces have been sent already."""
    request = ReasonerRequest(QUESTION, png(1), "none", 6)
    calls: list[int] = []

    def fail_once(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise ZeroDivisionError

    hook = reasoner.model.backbone.model.lm_head.register_forward_hook(fail_once)

    async def stream(request: ReasonerRequest) -> list[Any]:
        return [piece async for piece in reasoner.stream(request)]

    async def main() -> list[Any]:
        return await gather(stream(request), reasoner.answer(replace(request, question="And this?")))

    try:
        (*pieces, whole), other = asyncio.run(main())
    finally:
        hook.remove()
    assert len(calls) > 4
    assert isinstance(other, ReasonerReply)
    assert "".join(pieces) == whole.answer == asyncio.run(reasoner.answer(request)).answer


@pytest.mark.parametrize(
    ("error", "type", "status"),
    [
        (ArtifactError("memory/part-0.safetensors is damaged"), "artifact_damaged", 500),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", 500),
    ],
)
def test_what_only_a_person_can_mend_is_a_refusal(
    run: FinishedRun, error: Exception, type: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    retriever = RetrieverDeployment(run.config, check_artifacts(run.config))

    def fail(*_: Any) -> None:
        raise error

    retriever.model.retrieve, works = fail, retriever.model.retrieve
    reply = asyncio.run(retriever.retrieve(SEARCH))
    assert isinstance(reply, Refusal)
    assert (reply.type, reply.status) == (type, status)
    assert "Traceback" not in caplog.text or type == "out_of_memory"
    retriever.model.retrieve = works
    assert isinstance(asyncio.run(retriever.retrieve(SEARCH)), list)


def test_an_image_that_fails_the_memory_encoder_fails_alone(run: FinishedRun) -> None:
    encoder = MemoryEncoderDeployment(run.config, {})
    calls = [encoder.encode([("text", data)]) for data in (png(1), b"not an image", png(2))]

    async def main() -> list[Any]:
        return await gather(*calls)

    first, broken, last = asyncio.run(main())
    assert isinstance(broken, ImageError)
    assert first.shape == last.shape == (1, *first.shape[1:])
    encoder.check_health()


def test_a_question_whose_numbers_are_not_finite_is_refused_alone(reasoner: ReasonerDeployment) -> None:
    whole = ReasonerRequest(QUESTION, None, "none", 2)
    broken = replace(whole, mode="memory", memory=pack_memory(torch.full((1, 8, 64), torch.nan, dtype=torch.bfloat16)))
    first, second = reasoner._answer([_AnswerJob(broken), _AnswerJob(whole)])
    assert isinstance(first, Refusal)
    assert (first.type, first.field) == ("not_finite", "question")
    assert not isinstance(second, Refusal)


def test_memory_that_is_not_finite_is_refused_for_its_request_alone(run: FinishedRun) -> None:
    encoder = MemoryEncoderDeployment(run.config, {})
    forward, lengths = encoder.model.forward, []

    def overflow(sequences: Any) -> torch.Tensor:
        """As float16 does: infinite numbers for the items of one text."""
        lengths.extend(map(len, sequences))
        infinite = torch.tensor([len(s) > 100 for s in sequences])[:, None, None]
        return torch.where(infinite, torch.inf, forward(sequences))

    encoder.model.forward = overflow  # type: ignore[method-assign]

    async def main() -> list[Any]:
        return await gather(encoder.encode([("short", png(1))]), encoder.encode([("long " * 60, png(2))]))

    memory, refused = asyncio.run(main())
    assert isinstance(refused, Refusal)
    assert refused.type == "not_finite"
    assert memory.shape[0] == 1
    assert min(lengths) < 100 < max(lengths)
    encoder.check_health()
