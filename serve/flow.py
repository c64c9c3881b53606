"""The road of a request through the deployments: checks, retrieval, memory (from the store, or fresh), answer.

Runs in the ingress. Files are read in threads, models work elsewhere; nothing here computes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import torch
from ray.serve.handle import DeploymentHandle
from torch import Tensor

from comem_ray.config import Config
from comem_ray.knowledge.items import Item, ItemStore, UnknownItem
from comem_ray.memory_store import MemoryStore
from comem_ray.model.adapter import encoder_fingerprint
from serve.bodies import AnswerRequest, RetrieveRequest
from serve.checks import Checks
from serve.clock import Clock
from serve.errors import ApiError, api_error, asked, unavailable
from serve.messages import Ask, Hits, Refusal, Reply, Search, packed, unpacked

READY_TIMEOUT_S = 5
FRESH_ITEMS = 256  # memories kept that the store does not hold: 15 MB at 7B

Json = dict[str, Any]


@dataclass
class Prepared:
    """A question with all that the reasoner needs."""

    ask: Ask
    hits: Hits
    items: Awaitable[list[Item]]  # being read; in mode memory only the reply shows them, nobody waits before
    clock: Clock

    async def sources(self) -> list[Json]:
        """The items found, as the reply shows them. Raises UnknownItem where the index names one that is gone."""
        return _sources(self.hits, await self.items)


class Flow:
    """Answers requests by asking the deployments behind the three handles.

    Raises ArtifactError at the start where a stage of the knowledge base is missing or of another make.
    """

    def __init__(
        self, config: Config, retriever: DeploymentHandle, encoder: DeploymentHandle, reasoner: DeploymentHandle
    ):
        self.checks = Checks(config)
        self.items = ItemStore(config.folder("items"))
        self.store = MemoryStore(config.folder("memory"), encoder_fingerprint(config))
        self._fresh: OrderedDict[str, Tensor] = OrderedDict()
        self._retrieve, self._encode, self._answer = retriever.retrieve, encoder.encode, reasoner.answer
        self._look, self._under_way, self._ahead = reasoner.look, 0, set[asyncio.Future[None]]()
        self._stream = reasoner.options(method_name="stream", stream=True)
        self._ready = {"Retriever": retriever.ready, "MemoryEncoder": encoder.ready, "Reasoner": reasoner.ready}

    async def prepare(self, request: AnswerRequest) -> Prepared:
        """All that comes before the answer. Raises ApiError."""
        clock = Clock()
        question = self.checks.text(request.question, "question")
        max_new_tokens = self.checks.max_new_tokens(request.max_new_tokens)
        image = self.checks.image(request.image)
        search = self.checks.answer_search(request, image)
        if search is not None and image is not None and not self._under_way:
            self._look_ahead(image)
        hits = [] if search is None else await self._hits(search, clock)
        ids = [item_id for item_id, _ in hits]
        items = asyncio.ensure_future(self._read(ids, request.mode == "rag", clock))
        shown, memory = [], None
        if request.mode == "rag":
            shown = [(i.text, i.image) for i in await items if i.image is not None]
        if request.mode == "memory":
            memory = packed(await self._memory(ids, clock))
        ask = Ask(question, image, request.mode, max_new_tokens, shown, memory)
        return Prepared(ask, hits, items, clock)

    async def answer(self, prepared: Prepared) -> Json:
        """The answer's body. Raises ApiError."""
        with prepared.clock.stage("answer"), self._answering():
            reply = await asked(self._answer.remote(prepared.ask), "the reasoner")
        return await _body(prepared, reply)

    async def stream(self, prepared: Prepared) -> AsyncIterator[tuple[str, Json]]:
        """Events (name, data): sources, then a token a piece of text, then done; error in place of what fails."""
        yield "sources", {"sources": await prepared.sources()}
        try:
            with prepared.clock.stage("answer"), self._answering():
                pieces: Any = self._stream.remote(prepared.ask)
                async for piece in pieces:
                    if isinstance(piece, str):
                        yield "token", {"text": piece}
            # The last piece is the whole answer, or a refusal.
            if isinstance(piece, Refusal):
                raise ApiError(422, piece.type, piece.message, piece.field)
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
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    def _look_ahead(self, image: bytes) -> None:
        """Has an idle reasoner look at the image during retrieval. A busy one has no time to gain: it sees all
        images of a batch at once."""

        async def look() -> None:
            with suppress(Exception):  # a hint; what is wrong will be said to the question itself
                await self._look.remote(image)

        task = asyncio.ensure_future(look())
        self._ahead.add(task)  # asyncio itself keeps no reference
        task.add_done_callback(self._ahead.discard)

    async def _hits(self, search: Search, clock: Clock) -> Hits:
        with clock.stage("retrieve"):
            return await asked(self._retrieve.remote(search), "the retriever")

    async def _read(self, ids: Sequence[str], image: bool, clock: Clock) -> list[Item]:
        if not ids:
            return []
        with clock.stage("items"):
            return await asyncio.to_thread(self.items.get, ids, image=image)

    async def _memory(self, ids: Sequence[str], clock: Clock) -> Tensor:
        """Memory (K, Q, D) of the items: from the store, and what it does not hold from the memory encoder."""
        with clock.stage("memory"):
            missing = self.store.missing(ids)
            if not missing:
                return await asyncio.to_thread(self.store.get, ids)
            stored = [i for i in ids if i not in missing]
            memory = dict(zip(stored, await asyncio.to_thread(self.store.get, stored), strict=True))
            memory |= await self._fresh_memory(missing)
            return torch.stack([memory[i] for i in ids])

    async def _fresh_memory(self, ids: Sequence[str]) -> dict[str, Tensor]:
        known = {i: self._fresh[i] for i in ids if i in self._fresh}
        unknown = [i for i in ids if i not in known]
        if unknown:
            items = [(i.text, i.image) for i in await asyncio.to_thread(self.items.get, unknown)]
            made = unpacked(await asked(self._encode.remote(items), "the memory encoder"))
            known |= dict(zip(unknown, made, strict=True))
        self._fresh |= known
        while len(self._fresh) > FRESH_ITEMS:
            self._fresh.popitem(last=False)
        return known


def image_url(item: Item) -> str:
    """The source's own URL; where it has none that a browser can open, the image's path in this API."""
    url = item.image_url or ""
    return url if url.startswith(("http://", "https://")) else f"/v1/items/{quote(item.item_id)}/image"


def _sources(hits: Hits, items: Sequence[Item]) -> list[Json]:
    return [
        {"item_id": i.item_id, "title": i.title, "text": i.text, "score": round(score, 6), "image_url": image_url(i)}
        for (_, score), i in zip(hits, items, strict=True)
    ]


async def _body(prepared: Prepared, reply: Reply) -> Json:
    usage = {
        "prompt_tokens": reply.prompt_tokens,
        "memory_vectors": reply.memory_vectors,
        "completion_tokens": reply.completion_tokens,
    }
    return {
        "answer": reply.answer,
        "mode": prepared.ask.mode,
        "sources": await prepared.sources(),
        "timings_ms": prepared.clock.timings(),
        "usage": usage,
    }
