"""The way of a request through the deployments: checks, retrieval, memory (stored, or encoded now), answer.

Runs in the ingress. Files are read in threads, and the models work in their own replicas; nothing here computes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ray.serve.handle import DeploymentHandle
from torch import Tensor

from comem_ray.answers import make_sources
from comem_ray.artifacts import OpenStage
from comem_ray.clock import Clock
from comem_ray.config import Config
from comem_ray.knowledge.items import Item, ItemStore, UnknownItem
from comem_ray.memory_store import MemoryStore, stack_memory
from comem_ray.model.adapter import encoder_fingerprint
from serve.http.bodies import AnswerRequest, RetrieveRequest
from serve.http.checks import Checks
from serve.http.errors import ApiError, api_error, refused, reply_of, unavailable
from serve.messages import Hits, ReasonerReply, ReasonerRequest, Refusal, Search, pack_memory, unpack_memory
from serve.start import STAGES

READY_TIMEOUT_S = 5
KEPT_MEMORIES = 256  # of items that the store does not hold: 15 MB at 7B

Json = dict[str, Any]


@dataclass
class Prepared:
    """A question with all that the reasoner needs."""

    request: ReasonerRequest
    hits: Hits
    items: Awaitable[list[Item]]  # being read; in mode memory only the reply needs them
    clock: Clock

    async def sources(self) -> list[Json]:
        """The hits as the reply has them. Raises UnknownItem where the index names an item that is gone."""
        return _sources(self.hits, await self.items)


class Flow:
    """Answers requests with the deployments behind the three handles.

    The constructor raises ArtifactError where a stage of the knowledge base is missing or was made by something else.
    `generations`: what to serve, by folder (serve.start).
    """

    def __init__(
        self,
        config: Config,
        generations: Mapping[str, str],
        retriever: DeploymentHandle,
        encoder: DeploymentHandle,
        reasoner: DeploymentHandle,
    ):
        self.checks, self.generations = Checks(config), dict(generations)
        self.items = ItemStore(config.folder("items"), generations["items"])
        self.store = MemoryStore(config.folder("memory"), encoder_fingerprint(config), generations["memory"])
        # Held, not read: a retriever that starts again after a rerun finds the index of these items here.
        self._index = OpenStage(config.folder("index"), STAGES["index"], generations["index"])
        self._encoded: OrderedDict[str, Tensor] = OrderedDict()  # memories that the store does not hold
        self._retrieve, self._encode, self._answer = retriever.retrieve, encoder.encode, reasoner.answer
        self._encode_image, self._tasks = reasoner.encode_image, set[asyncio.Future[None]]()
        self._answers_under_way = 0
        self._stream = reasoner.options(method_name="stream", stream=True)
        self._ready = {"Retriever": retriever.ready, "MemoryEncoder": encoder.ready, "Reasoner": reasoner.ready}

    async def prepare(self, request: AnswerRequest) -> Prepared:
        """All that comes before the answer. Raises ApiError."""
        clock = Clock()
        question = self.checks.text(request.question, "question")
        max_new_tokens = self.checks.max_new_tokens(request.max_new_tokens)
        image = self.checks.image(request.image)
        search = self.checks.answer_search(request, image)
        if search is not None and image is not None and not self._answers_under_way:
            self._encode_image_ahead(image)
        hits = [] if search is None else await self._hits(search, clock)
        ids = [item_id for item_id, _ in hits]
        items = asyncio.ensure_future(self._read(ids, request.mode == "rag", clock))
        prompt_items, memory = [], None
        if request.mode == "rag":
            prompt_items = [(i.text, i.image) for i in await items if i.image is not None]
        if request.mode == "memory":
            memory = pack_memory(await self._memory(ids, clock))
        prepared = ReasonerRequest(question, image, request.mode, max_new_tokens, prompt_items, memory)
        return Prepared(prepared, hits, items, clock)

    async def answer(self, prepared: Prepared) -> Json:
        """The answer's body. Raises ApiError."""
        with prepared.clock.stage("answer"), self._answering():
            reply = await reply_of(self._answer.remote(prepared.request), "the reasoner")
        return await _body(prepared, reply)

    async def stream(self, prepared: Prepared) -> AsyncIterator[tuple[str, Json]]:
        """Events (name, data): sources, one token per piece of text, done. What fails ends with the event error."""
        try:
            yield "sources", {"sources": await prepared.sources()}
            with prepared.clock.stage("answer"), self._answering():
                pieces: Any = self._stream.remote(prepared.request)
                async for piece in pieces:
                    if isinstance(piece, str):
                        yield "token", {"text": piece}
            # The last piece is the whole answer, or a refusal.
            if isinstance(piece, Refusal):
                raise refused(piece)
            yield "done", await _body(prepared, piece)
        except Exception as error:
            yield "error", (unavailable(error, "the reasoner") or api_error(error)).body()

    async def retrieve(self, request: RetrieveRequest) -> Json:
        """The items nearest to an image, a text, or both. Raises ApiError."""
        clock = Clock()
        hits = await self._hits(self.checks.search(request, self.checks.image(request.image)), clock)
        items = await self._read([item_id for item_id, _ in hits], False, clock)
        return {"sources": _sources(hits, items), "timings_ms": clock.timings()}

    async def item(self, item_id: str, image: bool = False) -> Item:
        """One item. Raises ApiError (404) where there is none of that id."""
        try:
            if not item_id.isalnum():
                raise UnknownItem(item_id)
            return (await self._read([item_id], image, Clock()))[0]
        except UnknownItem as error:
            raise ApiError(404, "unknown_item", f"there is no item {item_id[:64]!r}", "item_id") from error

    async def unready(self) -> dict[str, str]:
        """Deployments that do not answer, and why."""
        replies = await asyncio.gather(
            *(asyncio.wait_for(h.remote(), READY_TIMEOUT_S) for h in self._ready.values()), return_exceptions=True
        )
        return {n: type(r).__name__ for n, r in zip(self._ready, replies, strict=True) if isinstance(r, BaseException)}

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

    async def _hits(self, search: Search, clock: Clock) -> Hits:
        with clock.stage("retrieve"):
            return await reply_of(self._retrieve.remote(search), "the retriever")

    async def _read(self, ids: Sequence[str], image: bool, clock: Clock) -> list[Item]:
        if not ids:
            return []
        with clock.stage("items"):
            return await asyncio.to_thread(self.items.get, ids, image=image)

    async def _memory(self, ids: Sequence[str], clock: Clock) -> Tensor:
        """Memory (K, Q, D) of the items: from the store, and what it does not hold from the memory encoder."""
        with clock.stage("memory"):
            stored = await asyncio.to_thread(self.store.get_stored, ids)
            missing = [i for i in ids if i not in stored]
            return stack_memory(ids, stored, await self._encode_missing(missing) if missing else {})

    async def _encode_missing(self, ids: Sequence[str]) -> dict[str, Tensor]:
        """Memory (Q, D) of items that the store does not hold; the last KEPT_MEMORIES of them are kept."""
        kept = {i: self._encoded[i] for i in ids if i in self._encoded}
        missing = [i for i in ids if i not in kept]
        if missing:
            items = [(i.text, i.image) for i in await asyncio.to_thread(self.items.get, missing)]
            memory = unpack_memory(await reply_of(self._encode.remote(items), "the memory encoder"))
            kept |= dict(zip(missing, memory, strict=True))
        self._encoded |= kept
        while len(self._encoded) > KEPT_MEMORIES:
            self._encoded.popitem(last=False)
        return kept


def image_url(item: Item) -> str:
    """The source's own URL. Where a browser cannot open that, the image's path in this API."""
    url = item.image_url or ""
    return url if url.startswith(("http://", "https://")) else f"/v1/items/{quote(item.item_id)}/image"


def _sources(hits: Hits, items: Sequence[Item]) -> list[Json]:
    sources = make_sources(items, [score for _, score in hits])
    fields = ("item_id", "title", "text", "score")
    return [
        {**{field: getattr(source, field) for field in fields}, "image_url": image_url(item)}
        for source, item in zip(sources, items, strict=True)
    ]


async def _body(prepared: Prepared, reply: ReasonerReply) -> Json:
    usage = {
        "prompt_tokens": reply.prompt_tokens,
        "memory_vectors": reply.memory_vectors,
        "completion_tokens": reply.completion_tokens,
    }
    return {
        "answer": reply.answer,
        "mode": prepared.request.mode,
        "sources": await prepared.sources(),
        "timings_ms": prepared.clock.timings(),
        "usage": usage,
    }
