"""The deployments: three models, each with its own replicas, and the ingress that sends a request through them.

Each is given the configuration and the generations to serve (`serve.start`).

Plain classes: `serve.app` makes deployments of them. A model works in a thread, on batches across users. The event loop
of its replica stays free to take requests.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import ray
from fastapi import FastAPI
from PIL.Image import Image, new
from ray import serve as ray_serve
from ray.serve.handle import DeploymentHandle

from comem_ray.artifacts import ArtifactError
from comem_ray.config import Config
from comem_ray.knowledge.images import ImageError, open_image
from serve.batching import Batcher, is_out_of_memory
from serve.checks import refused_image
from serve.errors import damaged, log
from serve.messages import Hits, ReasonerReply, ReasonerRequest, Refusal, Search, pack_memory, unpack_memory
from serve.pieces import Pieces
from serve.start import in_one_sentence

# A replica imports the modules of its own model (torch, transformers, open_clip). The ingress, and the process that
# builds the graph, start without them.

IMAGES_AHEAD = 16  # image features that wait for their question: 150 MB at 7B
TextAndImage = tuple[str, bytes]  # of an item, the image encoded

OUT_OF_MEMORY = Refusal(
    "out_of_memory",
    "there is not enough memory for this request: send fewer items (top_k), a smaller image or a shorter question",
    status=500,
)
INTERRUPTED = Refusal(
    "interrupted", "the answer had to be begun again and came out otherwise: send the same request again", status=503
)


def _device() -> str:
    """The GPU that Ray gave this replica, else the CPU."""
    return "cuda" if ray.get_runtime_context().get_accelerator_ids().get("GPU") else "cpu"


def _open(data: bytes, max_pixels: int) -> Image | Refusal:
    try:
        return open_image(data, max_pixels)
    except ImageError as error:
        return refused_image(error)


def _blank_image() -> Image:
    """Of the requests that check whether a model works at all."""
    return new("RGB", (32, 32))


class _ModelDeployment:
    """What the three models have in common: work goes through a batcher, whose health is the replica's."""

    batcher: Batcher[Any, Any]

    async def _reply(self, request: Any, logged: bool = True) -> Any:
        """The reply of the batcher. What only a person can mend here is a Refusal too; other exceptions pass."""
        try:
            return await self.batcher(request, logged)
        except ArtifactError as error:
            return damaged(error)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            log.error("out of memory with one request alone: %s", type(error).__name__)
            return OUT_OF_MEMORY

    async def ready(self) -> bool:
        return True

    def check_health(self) -> None:
        self.batcher.check()


class RetrieverDeployment(_ModelDeployment):
    """An image or text in, item ids and scores out."""

    def __init__(self, config: Config, generations: Mapping[str, str]):
        from comem_ray.retrieval import retriever

        with in_one_sentence():
            self.module, self.model = retriever, retriever.Retriever(config, _device(), generations["index"])
        self.max_pixels = config.api.max_image_pixels
        self.batcher: Batcher[Search, Hits | Refusal] = Batcher(self._search, config.api.max_batch, self._check)

    async def retrieve(self, search: Search) -> Hits | Refusal:
        reply: Hits | Refusal = await self._reply(search)
        return reply

    def _check(self) -> None:
        self.model.retrieve([self.module.Query(_blank_image(), None)], 1)

    def _search(self, searches: list[Search]) -> list[Hits | Refusal]:
        replies: dict[int, Hits | Refusal] = {}
        groups: dict[Any, dict[int, Any]] = defaultdict(dict)  # queries by position, those that one call can do
        for position, s in enumerate(searches):
            image = None if s.image is None or s.by == "text" else _open(s.image, self.max_pixels)
            if isinstance(image, Refusal):
                replies[position] = image
            else:
                query = self.module.Query(image, None if s.by == "image" else s.text)
                groups[s.k, s.by, s.language, s.text_weight][position] = query
        for options, queries in groups.items():
            replies |= zip(queries, self._retrieve(list(queries.values()), options), strict=True)
        return [replies[position] for position in range(len(searches))]

    def _retrieve(self, queries: list[Any], options: tuple[Any, ...]) -> list[Hits | Refusal]:
        """Hits of queries with the same options. A query that cannot be answered is refused, the others are answered.

        What else goes wrong is a fault of the service and is raised.
        """
        try:
            results = self.model.retrieve(queries, *options)
        except self.module.QueryError as error:
            if len(queries) == 1:
                return [Refusal("nothing_to_search", str(error), error.field)]
            return [reply for query in queries for reply in self._retrieve([query], options)]
        return [[(hit.item_id, hit.score) for hit in hits] for hits in results]


class MemoryEncoderDeployment(_ModelDeployment):
    """Items in, their packed memory (K, Q, D) out."""

    def __init__(self, config: Config, _: Mapping[str, str]):
        from comem_ray.model.memory_encoder import MemoryEncoder, NotFinite

        self.not_finite = NotFinite
        with in_one_sentence():
            self.model = MemoryEncoder(config, _device())
        self.max_pixels = config.ingest.images.max_pixels
        self.batcher: Batcher[list[TextAndImage], np.ndarray] = Batcher(self._encode, config.api.max_batch, self._check)

    async def encode(self, items: list[TextAndImage]) -> np.ndarray | Refusal:
        try:
            reply: np.ndarray | Refusal = await self._reply(items)
        except self.not_finite as error:  # an item that jobs.encode_memory quarantined, for one
            return Refusal("not_finite", str(error))
        return reply

    def _check(self) -> None:
        self.model.encode([("A blank image.", _blank_image())])

    def _encode(self, requests: list[list[TextAndImage]]) -> list[np.ndarray]:
        items = [(text, open_image(data, self.max_pixels)) for request in requests for text, data in request]
        ends = np.cumsum([len(request) for request in requests])
        return np.split(pack_memory(self.model.encode(items)), ends[:-1])


@dataclass
class _ImageJob:
    """An image to encode ahead of its question."""

    image: bytes


@dataclass
class _AnswerJob:
    request: ReasonerRequest
    pieces: Pieces | None = None


class ReasonerDeployment(_ModelDeployment):
    """A question with its memory or items in, an answer out, whole or piece by piece.

    A question's image may come ahead: it is encoded while its items are still being retrieved.
    """

    def __init__(self, config: Config, _: Mapping[str, str]):
        from comem_ray.model import reasoner

        with in_one_sentence():
            self.module, self.model = reasoner, reasoner.Reasoner(config, _device())
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
        self.model.answer([self.module.make_prompt("?", _blank_image(), "none", max_new_tokens=1)])

    def _work(self, jobs: list[_AnswerJob | _ImageJob]) -> list[ReasonerReply | Refusal | Exception | None]:
        for job in jobs:
            if isinstance(job, _ImageJob):
                self._encode_image(job.image)
        replies = iter(self._answer([job for job in jobs if isinstance(job, _AnswerJob)]))
        return [next(replies) if isinstance(job, _AnswerJob) else None for job in jobs]

    def _encode_image(self, data: bytes) -> None:
        image = _open(data, self.max_pixels)
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
            image = features or _open(request.image, self.max_pixels)
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


@ray_serve.ingress()
class Ingress:
    """The HTTP API. Its own queue has no limit: the queues of the models say when there is no room."""

    def __init__(
        self,
        config: Config,
        generations: Mapping[str, str],
        retriever: DeploymentHandle,
        memory_encoder: DeploymentHandle,
        reasoner: DeploymentHandle,
    ):
        from serve.flow import Flow

        with in_one_sentence():
            self.limits, self.flow = config.api, Flow(config, generations, retriever, memory_encoder, reasoner)

    def __serve_build_asgi_app__(self) -> FastAPI:
        from serve.api import build_api

        return build_api(self.flow, self.limits)
