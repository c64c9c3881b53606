"""The reasoner as a deployment: answers, whole or piece by piece, of many users at once (AnswerScheduler)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

from comem_ray.config import Config
from comem_ray.knowledge.images import ImageError, open_image
from comem_ray.prompts import Turn
from serve.deployments.model import OUT_OF_MEMORY, blank_image, device_of_replica, give_back_memory
from serve.http.checks import refused_image
from serve.http.errors import log
from serve.local_ports import listen_locally
from serve.messages import Generations, ReasonerReply, ReasonerRequest, Refusal, TurnMessage, unpack_memory
from serve.scheduling.health import is_out_of_memory
from serve.start import in_one_sentence

IMAGES_AHEAD = 16  # image features that wait for their question: 150 MB at 7B


class ReasonerDeployment:
    """A question with its memory or items in, an answer out, whole or piece by piece.

    A question's image may come ahead: it is encoded while its items are still being retrieved.
    """

    def __init__(self, config: Config, _: Generations):
        from comem_ray.model import reasoner
        from serve.scheduling.answering import AnswerScheduler

        listen_locally()
        with in_one_sentence():
            self.module, self.model = reasoner, reasoner.Reasoner(config, device_of_replica())
        self.max_pixels, self.max_item_pixels = config.api.max_image_pixels, config.ingest.images.max_pixels
        self._features: OrderedDict[bytes, Any] = OrderedDict()  # of images that came ahead, by digest
        self.scheduler = AnswerScheduler(self.model, config.api, self._prompt_or_refusal, self._check)

    async def encode_image(self, image: bytes) -> None:
        """Encodes an image whose question will follow. Where none follows, only the time is lost."""
        await self.scheduler.do(lambda: self._encode_image(image))

    async def answer(self, request: ReasonerRequest) -> ReasonerReply | Refusal:
        """The answer to one question. Cancelling it frees its place within one token."""
        return await self._answer(request)

    async def _answer(
        self, request: ReasonerRequest, send: Callable[[str], None] | None = None
    ) -> ReasonerReply | Refusal:
        try:
            return await self.scheduler.answer(request, send)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            log.error("out of memory with one request alone: %s", type(error).__name__)
            return OUT_OF_MEMORY

    async def stream(self, request: ReasonerRequest) -> AsyncIterator[str | ReasonerReply | Refusal]:
        """Pieces of text, then the whole reply or a refusal."""
        pieces = asyncio.Queue[str | None]()
        reply = asyncio.ensure_future(self._answer(request, pieces.put_nowait))
        reply.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            yield reply.result()
        finally:
            reply.cancel()  # where the user went away before the end

    async def ready(self) -> bool:
        """That the replica answers; its queue does not matter."""
        return True

    def check_health(self) -> None:
        """Raises RuntimeError where the model no longer works, or hangs."""
        self.scheduler.check()

    def _check(self) -> None:
        self.model.answer([self.module.make_prompt("?", blank_image(), "none", max_new_tokens=1)])

    def _encode_image(self, data: bytes) -> None:
        try:
            image = open_image(data, self.max_pixels)
        except ImageError:
            return  # its question is refused when it comes
        self._features[sha256(data).digest()] = self.model.encode_image(image)
        give_back_memory(image.width * image.height)
        while len(self._features) > IMAGES_AHEAD:
            self._features.popitem(last=False)

    def _prompt_or_refusal(self, request: ReasonerRequest) -> Any:
        try:
            return self._prompt(request)
        except ImageError as error:
            return refused_image(error)

    def _prompt(self, request: ReasonerRequest) -> Any:
        images = [self._image(data) for data in request.images]
        items = [(text, open_image(data, self.max_item_pixels)) for text, data in request.items]
        memory = None if request.memory is None else unpack_memory(request.memory)
        image = images[0] if len(images) == 1 else images or None
        prompt = self.module.make_prompt(request.question, image, request.mode, items, memory, request.max_new_tokens)
        history = [self._turn(turn) for turn in request.history]
        return replace(prompt, system=request.system, history=history, sampling=request.sampling)

    def _turn(self, turn: TurnMessage) -> Any:
        return Turn(turn.role, turn.text, [self._image(data) for data in turn.images])

    def _image(self, data: bytes) -> Any:
        # Taken out: the next question about it is as likely to come to another replica.
        features = self._features.pop(sha256(data).digest(), None)
        if features is not None:
            return features
        image = open_image(data, self.max_pixels)
        give_back_memory(image.width * image.height)  # what decoding it took besides
        return image
