"""The deployments: three models, each its own replicas, and the ingress that sends a request through them.

Plain classes: `serve.app` makes deployments of them. A model works in a thread, on batches across users; its replica's
event loop stays free to take requests.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import ray
from fastapi import FastAPI
from PIL.Image import Image
from ray import serve as ray_serve
from ray.serve.handle import DeploymentHandle

from comem_ray.config import Config
from comem_ray.knowledge.images import ImageError, open_image
from serve.batching import Batcher
from serve.checks import refused_image
from serve.messages import Ask, By, Hits, Refusal, Reply, Search, packed, unpacked

# The models' own modules (torch, transformers, open_clip) are imported by the replica that needs them: the ingress and
# whoever builds the graph start without them.


def _device() -> str:
    """The GPU that Ray gave this replica, else the CPU."""
    return "cuda" if ray.get_runtime_context().get_accelerator_ids().get("GPU") else "cpu"


def _image(data: bytes, max_pixels: int) -> Image | Refusal:
    try:
        return open_image(data, max_pixels)
    except ImageError as error:
        return refused_image(error)


class _Model:
    """What the three have in common: work goes through a batcher, whose health is the replica's."""

    batcher: Batcher[Any, Any]

    async def ready(self) -> bool:
        return True

    def check_health(self) -> None:
        self.batcher.check()


class Retriever(_Model):
    """An image or text in, item ids and scores out."""

    def __init__(self, config: Config):
        from comem_ray.retrieval.retriever import Query
        from comem_ray.retrieval.retriever import Retriever as Model

        self.query, self.model = Query, Model(config, _device())
        self.max_pixels = config.api.max_image_pixels
        self.batcher: Batcher[Search, Hits | Refusal] = Batcher(self._search, config.api.max_batch)

    async def retrieve(self, search: Search) -> Hits | Refusal:
        return await self.batcher(search)

    def _search(self, searches: list[Search]) -> list[Hits | Refusal]:
        replies: dict[int, Hits | Refusal] = {}
        groups: dict[Any, list[tuple[int, Any]]] = defaultdict(list)
        for place, s in enumerate(searches):
            image = None if s.image is None or s.by == "text" else _image(s.image, self.max_pixels)
            if isinstance(image, Refusal):
                replies[place] = image
            else:
                text = None if s.by == "image" else s.text
                groups[s.k, s.by, s.language, s.text_weight].append((place, self.query(image, text)))
        for options, asked in groups.items():
            found = self._found([query for _, query in asked], *options)
            replies |= {place: reply for (place, _), reply in zip(asked, found, strict=True)}
        return [replies[place] for place in range(len(searches))]

    def _found(self, queries: list[Any], k: int, by: By, language: str | None, weight: float | None) -> list[Any]:
        try:
            found = self.model.retrieve(queries, k, by, language, weight)
        except ValueError as error:  # no item in that language, or an index without texts
            return [Refusal("nothing_to_search", str(error), "language" if language else "by")] * len(queries)
        return [[(h.item_id, h.score) for h in hits] for hits in found]


LOOKED = 16  # images that were looked at and not yet asked about: 150 MB at 7B
Shown = tuple[str, bytes]  # an item's text and encoded image


class MemoryEncoder(_Model):
    """Items in, their packed memory (K, Q, D) out."""

    def __init__(self, config: Config):
        from comem_ray.model.memory_encoder import MemoryEncoder as Model

        self.model = Model(config, _device())
        self.max_pixels = config.ingest.images.max_pixels
        self.batcher: Batcher[list[Shown], np.ndarray] = Batcher(self._encode, config.api.max_batch)

    async def encode(self, items: list[Shown]) -> np.ndarray:
        return await self.batcher(items)

    def _encode(self, requests: list[list[Shown]]) -> list[np.ndarray]:
        items = [(text, open_image(data, self.max_pixels)) for request in requests for text, data in request]
        ends = np.cumsum([len(request) for request in requests])
        return np.split(packed(self.model.encode(items)), ends[:-1])


@dataclass
class _Look:
    image: bytes


@dataclass
class _Job:
    ask: Ask
    on_text: Callable[[str], None] | None = None


class Reasoner(_Model):
    """A question with its memory or items in, an answer out, whole or piece by piece.

    It may be shown a question's image ahead: it looks at it while the rest is still being retrieved.
    """

    def __init__(self, config: Config):
        from comem_ray.model import reasoner

        self.module, self.model = reasoner, reasoner.Reasoner(config, _device())
        self.max_pixels, self.max_item_pixels = config.api.max_image_pixels, config.ingest.images.max_pixels
        self._looked: OrderedDict[bytes, Any] = OrderedDict()
        self.batcher: Batcher[_Job | _Look, Reply | Refusal | None] = Batcher(self._work, config.api.max_batch)

    async def look(self, image: bytes) -> None:
        """Looks at an image that a question will come with. Costs nothing where none comes but the look itself."""
        await self.batcher(_Look(image), logged=False)  # a request has one line here, that of its answer

    async def answer(self, ask: Ask) -> Reply | Refusal:
        reply = await self.batcher(_Job(ask))
        assert reply is not None
        return reply

    async def stream(self, ask: Ask) -> AsyncIterator[str | Reply | Refusal]:
        """Pieces of text, then the whole reply or a refusal."""
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[str | None]()

        def on_text(text: str) -> None:  # called in the model's thread
            loop.call_soon_threadsafe(pieces.put_nowait, text)

        reply = asyncio.ensure_future(self.batcher(_Job(ask, on_text)))
        reply.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            whole = reply.result()
            assert whole is not None
            yield whole
        finally:
            reply.cancel()  # where the user went away before the end

    def _work(self, jobs: list[_Job | _Look]) -> list[Reply | Refusal | None]:
        for job in jobs:
            if isinstance(job, _Look):
                self._look(job.image)
        replies = iter(self._answer([job for job in jobs if isinstance(job, _Job)]))
        return [next(replies) if isinstance(job, _Job) else None for job in jobs]

    def _look(self, data: bytes) -> None:
        image = _image(data, self.max_pixels)
        if not isinstance(image, Refusal):  # else the question is refused when it comes
            self._looked[sha256(data).digest()] = self.model.encode_image(image)
        while len(self._looked) > LOOKED:
            self._looked.popitem(last=False)

    def _answer(self, jobs: list[_Job]) -> list[Reply | Refusal]:
        questions = [self._question(job.ask) for job in jobs]
        sound = [(q, job) for q, job in zip(questions, jobs, strict=True) if not isinstance(q, Refusal)]
        replies = iter(self._replies(sound))
        return [q if isinstance(q, Refusal) else next(replies) for q in questions]

    def _question(self, ask: Ask) -> Any:
        image = None
        if ask.image is not None:
            # Taken out: the next question about it is as likely to come to another replica.
            image = self._looked.pop(sha256(ask.image).digest(), None) or _image(ask.image, self.max_pixels)
        if isinstance(image, Refusal):
            return image
        return self.module.Prompt(
            text=ask.question,
            image=image,
            mode=ask.mode,
            items=[(text, open_image(data, self.max_item_pixels)) for text, data in ask.items],
            memory=None if ask.memory is None else unpacked(ask.memory),
            max_new_tokens=ask.max_new_tokens,
        )

    def _replies(self, sound: Sequence[tuple[Any, _Job]]) -> list[Reply | Refusal]:
        """Replies to questions that can be read. One whose prompt is too long is refused, the others are answered."""
        if not sound:
            return []
        listeners = {i: job.on_text for i, (_, job) in enumerate(sound) if job.on_text is not None}

        def on_text(i: int, text: str) -> None:
            if i in listeners:
                listeners[i](text)

        try:
            # Without a listener no text is decoded before the end.
            answers = self.model.answer([q for q, _ in sound], on_text if listeners else None)
        except self.module.PromptTooLong as error:  # raised before the first token
            if len(sound) == 1:
                return [Refusal("prompt_too_long", str(error), "question")]
            return [reply for pair in sound for reply in self._replies([pair])]
        return [Reply(a.text, a.prompt_tokens, a.memory_vectors, a.completion_tokens) for a in answers]


@ray_serve.ingress()
class Ingress:
    """The HTTP API. Its own queue is open: the models' queues say when there is no room, in the API's own words."""

    def __init__(
        self, config: Config, retriever: DeploymentHandle, memory_encoder: DeploymentHandle, reasoner: DeploymentHandle
    ):
        from serve.flow import Flow

        self.limits, self.flow = config.api, Flow(config, retriever, memory_encoder, reasoner)

    def __serve_build_asgi_app__(self) -> FastAPI:
        from serve.api import build_api

        return build_api(self.flow, self.limits)
