"""The way of a request through the deployments: checks, retrieval, memory (stored, or encoded now), answer.

Runs in the ingress. Files are read in threads, and the models work in their own replicas; nothing here computes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from comem_ray.answers import make_sources
from comem_ray.clock import Clock
from comem_ray.config import Config
from comem_ray.knowledge.items import Item
from comem_ray.memory_store import stack_memory
from serve.editing import KnowledgeEditor, KnowledgeList
from serve.http.bodies import RetrieveRequest
from serve.http.checks import Checks
from serve.http.errors import ApiError, api_error, log, refused, reply_of, timed_out, unavailable
from serve.http.item_bodies import image_url, item_body
from serve.messages import (
    Generations,
    QuestionRequest,
    ReasonerReply,
    ReasonerRequest,
    Refusal,
    Search,
    SearchReply,
    pack_memory,
)
from serve.metrics import IngressMetrics
from serve.reading import KnowledgeReader

READY_TIMEOUT_S = 5

Json = dict[str, Any]


@dataclass
class Prepared:
    """A question with all that the reasoner needs."""

    request: ReasonerRequest
    sources: Awaitable[list[Json]]  # being read; in mode memory only the reply needs them
    deadline: float  # by time.monotonic
    clock: Clock = field(default_factory=Clock)


class Flow:
    """Answers requests with the deployments behind the four handles.

    The constructor raises ArtifactError where a stage of the knowledge base is missing or was made by something else.
    """

    def __init__(
        self,
        config: Config,
        generations: Generations,
        knowledge: DeploymentHandle,
        retriever: DeploymentHandle,
        encoder: DeploymentHandle,
        reasoner: DeploymentHandle,
    ):
        self.config, self.checks = config, Checks(config)
        self.metrics = IngressMetrics()
        self.knowledge = KnowledgeReader(config, generations, knowledge, encoder)
        self.editor = KnowledgeEditor(config, self.knowledge, knowledge, retriever, encoder)
        self.listing = KnowledgeList(self.knowledge, knowledge)
        self._retrieve, self._answer = retriever.retrieve, reasoner.answer
        self._encode_image, self._tasks = reasoner.encode_image, set[asyncio.Future[None]]()
        self._answers_under_way = 0
        self._stream = reasoner.options(method_name="stream", stream=True)
        self._ready = {
            "Knowledge": knowledge.ready,
            "Retriever": retriever.ready,
            "MemoryEncoder": encoder.ready,
            "Reasoner": reasoner.ready,
        }

    async def prepare(self, question: QuestionRequest, caller: str) -> Prepared:
        """All that comes before the answer. Raises ApiError."""
        clock = Clock()
        deadline = time.monotonic() + (question.timeout_s or self.config.api.default_timeout_s)
        async with _until(deadline):
            return await self._prepare(question, caller, deadline, clock)

    async def _prepare(self, question: QuestionRequest, caller: str, deadline: float, clock: Clock) -> Prepared:
        search = self.checks.answer_search(question)
        if search is not None and search.image is not None and not self._answers_under_way:
            self._encode_image_ahead(search.image)
        reply = None if search is None else await self._search(search, clock)
        items = asyncio.ensure_future(self._read(reply, question.mode == "rag", clock))
        prompt_items, memory = [], None
        if reply is not None and question.mode == "rag":
            prompt_items = [(i.text, i.image) for i, _ in await items if i.image is not None]
        if reply is not None and question.mode == "memory":
            with clock.stage("memory"):
                rows = await self.knowledge.memory(reply)
                item_ids = [hit.item_id for hit in reply.hits if hit.item_id in rows]
                memory = pack_memory(stack_memory(item_ids, rows)) if item_ids else None
        request = ReasonerRequest(
            question.question,
            question.images,
            question.mode,
            question.max_new_tokens,
            prompt_items,
            memory,
            question.system,
            question.history,
            question.sampling,
            deadline - time.monotonic(),
            caller,
        )
        return Prepared(request, asyncio.ensure_future(_as_sources(items)), deadline, clock)

    async def answer(self, prepared: Prepared) -> Json:
        """The answer's body. Raises ApiError."""
        with prepared.clock.stage("answer"), self._answering():
            async with _until(prepared.deadline):
                reply = await reply_of(self._answer.remote(prepared.request), "the reasoner")
        return await self._body(prepared, reply)

    async def stream(self, prepared: Prepared) -> AsyncIterator[tuple[str, Json]]:
        """Events (name, data): sources, one token per piece of text, done. What fails ends with the event error."""
        pieces: Any = None
        try:
            yield "sources", {"sources": await prepared.sources}
            with prepared.clock.stage("answer"), self._answering():
                pieces = self._stream.remote(prepared.request)
                first = True
                async for piece in pieces:
                    if isinstance(piece, str):
                        if first:
                            self.metrics.observe_first_token(prepared.clock.seconds(), prepared.request.mode)
                        first = False
                        yield "token", {"text": piece}
            # The last piece is the whole answer, or a refusal.
            if isinstance(piece, Refusal):
                raise refused(piece)
            yield "done", await self._body(prepared, piece)
        except (GeneratorExit, asyncio.CancelledError):
            if pieces is not None:
                pieces.cancel()  # the user went away: the reasoner's place is free at its next token
            raise
        except Exception as error:
            refusal = unavailable(error, "the reasoner") or api_error(error)
            headers = refusal.headers or {}
            yield "error", {**refusal.body(), "status": refusal.status_code, "retry_after": headers.get("Retry-After")}

    async def retrieve(self, request: RetrieveRequest, fetched: bytes | None = None) -> Json:
        """The items nearest to an image, a text, or both; `fetched`: the image where it is a URL. Raises ApiError."""
        clock = Clock()
        image = fetched or self.checks.image(request.image)
        reply = await self._search(self.checks.search(request, image), clock)
        sources = await _as_sources(self._read(reply, False, clock))
        return {"sources": sources, "timings_ms": clock.timings()}

    async def search(self, search: Search) -> SearchReply:
        """The hits of a search. Raises ApiError."""
        return await reply_of(self._retrieve.remote(search), "the retriever")

    async def find_items(self, text: str, limit: int, language: str | None) -> Json:
        """The items nearest to a text, as /v1/items lists them. Raises ApiError."""
        self.checks.text(text, "search")
        query = RetrieveRequest(text=text, top_k=min(limit, self.config.api.max_top_k), by="text", language=language)
        reply = await self.search(self.checks.search(query, None))
        items = await self.knowledge.items(reply, False)
        hits = [hit for hit in reply.hits if hit.item_id in items]
        rows = [{**item_body(items[h.item_id], h.live), "score": round(h.score, 6)} for h in hits]
        return {"items": rows, "total": len(rows)}

    async def item(self, item_id: str, image: bool = False) -> tuple[Item, bool]:
        """One item, and whether it is live. Raises ApiError (404) where there is none of that id."""
        item = await self.knowledge.item(item_id, image) if item_id.isalnum() else None
        if item is None:
            raise ApiError(404, "unknown_item", f"there is no item {item_id[:64]!r}", "item_id")
        return item

    async def unready(self) -> dict[str, str]:
        """What keeps this service from answering, and why: deployments that do not answer, folders that are gone.

        A deployment whose queue is full answers: it is busy, not away.
        """
        replies = await asyncio.gather(
            *(asyncio.wait_for(h.remote(), READY_TIMEOUT_S) for h in self._ready.values()), return_exceptions=True
        )
        errors = zip(self._ready, replies, strict=True)
        away = {
            n: type(r).__name__
            for n, r in errors
            if isinstance(r, BaseException) and not isinstance(r, BackPressureError)
        }
        return {**away, **await asyncio.to_thread(self.knowledge.base.missing)}

    async def _body(self, prepared: Prepared, reply: ReasonerReply) -> Json:
        """The answer's body; with api.log_questions, question and answer go into the log."""
        if self.config.api.log_questions:
            log.info("question=%r answer=%r", prepared.request.question, reply.answer)
        usage = {
            "prompt_tokens": reply.prompt_tokens,
            "memory_vectors": reply.memory_vectors,
            "completion_tokens": reply.completion_tokens,
        }
        mode, timings = prepared.request.mode, prepared.clock.timings()
        self.metrics.add_usage(usage, mode)
        self.metrics.observe_stages(timings, mode)
        return {
            "answer": reply.answer,
            "mode": prepared.request.mode,
            "finish_reason": reply.finish_reason,
            "sources": await prepared.sources,
            "timings_ms": timings,
            "usage": usage,
        }

    @contextmanager
    def _answering(self) -> Iterator[None]:
        self._answers_under_way += 1
        try:
            yield
        finally:
            self._answers_under_way -= 1

    def _encode_image_ahead(self, image: bytes) -> None:
        """Has an idle reasoner encode the image during retrieval. A busy one would gain no time: it encodes all images
        of a batch at once."""

        async def encode() -> None:
            with suppress(Exception):  # what is wrong with the image is an error of the question itself, later
                await self._encode_image.remote(image)

        task = asyncio.ensure_future(encode())
        self._tasks.add(task)  # asyncio itself keeps no reference
        task.add_done_callback(self._tasks.discard)

    async def _search(self, search: Search, clock: Clock) -> SearchReply:
        with clock.stage("retrieve"):
            return await self.search(search)

    async def _read(self, reply: SearchReply | None, image: bool, clock: Clock) -> list[tuple[Item, float]]:
        """The items of the hits with their scores, without those that were deleted in between."""
        if reply is None:
            return []
        with clock.stage("items"):
            items = await self.knowledge.items(reply, image)
            return [(items[hit.item_id], hit.score) for hit in reply.hits if hit.item_id in items]


@asynccontextmanager
async def _until(deadline: float) -> AsyncIterator[None]:
    """Ends the block at `deadline` (time.monotonic) with an ApiError (504)."""
    try:
        async with asyncio.timeout(max(0, deadline - time.monotonic())):
            yield
    except TimeoutError as error:
        raise timed_out() from error


async def _as_sources(items: Awaitable[list[tuple[Item, float]]]) -> list[Json]:
    pairs = await items
    sources = make_sources([item for item, _ in pairs], [score for _, score in pairs])
    fields = ("item_id", "title", "text", "score", "page_url")
    return [
        {**{field: getattr(source, field) for field in fields}, "image_url": image_url(item)}
        for source, (item, _) in zip(sources, pairs, strict=True)
    ]
