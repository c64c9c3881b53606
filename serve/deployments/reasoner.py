"""The reasoner as a deployment: answers, whole or piece by piece."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from comem_ray.config import Config
from comem_ray.knowledge.images import open_image
from serve.deployments.model import ModelDeployment, blank_image, device_of_replica, open_or_refuse
from serve.messages import ReasonerReply, ReasonerRequest, Refusal, unpack_memory
from serve.scheduling.batching import Batcher
from serve.scheduling.pieces import Pieces
from serve.start import in_one_sentence

IMAGES_AHEAD = 16  # image features that wait for their question: 150 MB at 7B

INTERRUPTED = Refusal(
    "interrupted", "the answer had to be begun again and came out otherwise: send the same request again", status=503
)


@dataclass
class _ImageJob:
    """An image to encode ahead of its question."""

    image: bytes


@dataclass
class _AnswerJob:
    request: ReasonerRequest
    pieces: Pieces | None = None


class ReasonerDeployment(ModelDeployment):
    """A question with its memory or items in, an answer out, whole or piece by piece.

    A question's image may come ahead: it is encoded while its items are still being retrieved.
    """

    def __init__(self, config: Config, _: Mapping[str, str]):
        from comem_ray.model import reasoner

        with in_one_sentence():
            self.module, self.model = reasoner, reasoner.Reasoner(config, device_of_replica())
        self.max_pixels, self.max_item_pixels = config.api.max_image_pixels, config.ingest.images.max_pixels
        self._features: OrderedDict[bytes, Any] = OrderedDict()  # of images that came ahead, by digest
        self.batcher: Batcher[_AnswerJob | _ImageJob, ReasonerReply | Refusal | None] = Batcher(
            self._work, config.api.max_batch, self._check
        )

    async def encode_image(self, image: bytes) -> None:
        """Encodes an image whose question will follow. Where none follows, only the time is lost."""
        await self._reply(_ImageJob(image), logged=False)  # a request has one line here, that of its answer

    async def answer(self, request: ReasonerRequest) -> ReasonerReply | Refusal:
        reply: ReasonerReply | Refusal = await self._reply(_AnswerJob(request))
        return reply

    async def stream(self, request: ReasonerRequest) -> AsyncIterator[str | ReasonerReply | Refusal]:
        """Pieces of text, then the whole reply or a refusal."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[str | None]()

        def send(text: str) -> None:  # called in the model's thread
            loop.call_soon_threadsafe(queue.put_nowait, text)

        pieces = Pieces(send)
        reply = asyncio.ensure_future(self._reply(_AnswerJob(request, pieces)))
        reply.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (piece := await queue.get()) is not None:
                yield piece
            whole: ReasonerReply | Refusal = reply.result()
            yield INTERRUPTED if isinstance(whole, ReasonerReply) and pieces.differs else whole
        finally:
            reply.cancel()  # where the user went away before the end

    def _check(self) -> None:
        self.model.answer([self.module.make_prompt("?", blank_image(), "none", max_new_tokens=1)])

    def _work(self, jobs: list[_AnswerJob | _ImageJob]) -> list[ReasonerReply | Refusal | Exception | None]:
        for job in jobs:
            if isinstance(job, _ImageJob):
                self._encode_image(job.image)
        replies = iter(self._answer([job for job in jobs if isinstance(job, _AnswerJob)]))
        return [next(replies) if isinstance(job, _AnswerJob) else None for job in jobs]

    def _encode_image(self, data: bytes) -> None:
        image = open_or_refuse(data, self.max_pixels)
        if not isinstance(image, Refusal):  # else its question is refused when it comes
            self._features[sha256(data).digest()] = self.model.encode_image(image)
        while len(self._features) > IMAGES_AHEAD:
            self._features.popitem(last=False)

    def _answer(self, jobs: list[_AnswerJob]) -> list[ReasonerReply | Refusal | Exception]:
        prompts = [self._prompt(job.request) for job in jobs]
        valid = [(p, job) for p, job in zip(prompts, jobs, strict=True) if not isinstance(p, Refusal)]
        replies = iter(self._replies(valid))
        return [p if isinstance(p, Refusal) else next(replies) for p in prompts]

    def _prompt(self, request: ReasonerRequest) -> Any:
        image = None
        if request.image is not None:
            # Taken out: the next question about it is as likely to come to another replica.
            features = self._features.pop(sha256(request.image).digest(), None)
            image = features or open_or_refuse(request.image, self.max_pixels)
        if isinstance(image, Refusal):
            return image
        items = [(text, open_image(data, self.max_item_pixels)) for text, data in request.items]
        memory = None if request.memory is None else unpack_memory(request.memory)
        return self.module.make_prompt(request.question, image, request.mode, items, memory, request.max_new_tokens)

    def _replies(self, jobs: Sequence[tuple[Any, _AnswerJob]]) -> list[ReasonerReply | Refusal | Exception]:
        """Replies to (prompt, job). A prompt that is too long, or not finite, is refused; others are answered."""
        if not jobs:
            return []
        listeners = {i: job.pieces for i, (_, job) in enumerate(jobs) if job.pieces is not None}
        for pieces in listeners.values():
            pieces.begin()

        def on_text(i: int, text: str) -> None:
            if i in listeners:
                listeners[i](text)

        # Without a listener no text is decoded before the end.
        outcomes = self.model.answer_each([prompt for prompt, _ in jobs], on_text if listeners else None)
        return [self._reply_of(outcome) for outcome in outcomes]

    def _reply_of(self, outcome: Any) -> ReasonerReply | Refusal | Exception:
        if isinstance(outcome, self.module.PromptTooLong):
            return Refusal("prompt_too_long", str(outcome), "question")
        if isinstance(outcome, self.module.NotFinite):
            return Refusal("not_finite", str(outcome), "question")
        if isinstance(outcome, Exception):
            return outcome
        return ReasonerReply(outcome.text, outcome.prompt_tokens, outcome.memory_vectors, outcome.completion_tokens)
