"""The retriever as a deployment: batches across users in a thread; the event loop stays free to take requests.

Before each search it asks the journal's owner what has changed. So a search that starts after a write was acknowledged
knows of it, in every replica.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ray.serve.handle import DeploymentHandle

from comem_ray.artifacts import ArtifactError
from comem_ray.config import Config
from comem_ray.knowledge.images import open_image
from serve.base import still_there
from serve.deployments.model import (
    ModelDeployment,
    TextAndImage,
    blank_image,
    device_of_replica,
    give_back_memory,
    open_or_refuse,
)
from serve.http.errors import damaged, log, refusal_of
from serve.local_ports import listen_locally
from serve.messages import ChangesReply, Generations, ItemHit, Refusal, Search, SearchReply
from serve.scheduling.batching import Batcher
from serve.scheduling.shared_call import SharedCall
from serve.start import in_one_sentence

Vectors = dict[str, np.ndarray]


@dataclass(frozen=True)
class _State:
    """What one search sees: an index, and the changes since it was built."""

    model: Any
    live: Any
    generations: Generations


class RetrieverDeployment(ModelDeployment):
    """An image or text in, item ids and scores out."""

    def __init__(self, config: Config, generations: Generations, knowledge: DeploymentHandle):
        from comem_ray.retrieval import retriever

        self.config, self.module = config, retriever
        listen_locally()
        with in_one_sentence():
            now = still_there(config, generations)
            model = self._load(now)
            self.state = _State(model, model.live(now.live), now)
        self._changes, self._sync = knowledge.changes, SharedCall(self._catch_up)
        self._moving: asyncio.Task[None] | None = None
        self._refused: Generations | None = None  # newer ones, which cannot be opened
        self.max_pixels, self.max_item_pixels = config.api.max_image_pixels, config.ingest.images.max_pixels
        self.batcher: Batcher[Any, Any] = Batcher(self._work, config.api.max_batch, self._check)

    async def retrieve(self, search: Search) -> SearchReply | Refusal:
        """The hits of one search, in the knowledge as it is when this is called, or later."""
        try:
            await self._sync()
        except ArtifactError as error:
            return damaged(error)
        except Exception as error:
            return refusal_of(error, "the journal of the knowledge base")
        reply: SearchReply | Refusal = await self._reply(search)
        return reply

    async def embed(self, items: list[TextAndImage]) -> list[Vectors] | Refusal:
        """The vectors of items that are to be added, by kind, each (C,) float32."""
        vectors: list[Vectors] | Refusal = await self._reply(items)
        return vectors

    async def _catch_up(self) -> None:
        while not await self._try_to_catch_up():
            pass

    async def _try_to_catch_up(self) -> bool:
        """Applies what has changed; false where the index was exchanged meanwhile, so that it must be tried again."""
        state = self.state
        reply: ChangesReply = await self._changes.remote(state.live.seq)
        if reply.generations not in (state.generations, self._refused) and self._moving is None:
            self._moving = asyncio.create_task(self._move(reply.generations))
        if state.live.seq < reply.forgotten:  # what is missing here is in the newer index alone
            if self._moving is None:
                raise ArtifactError(f"the index of generation {reply.generations.folders['index']} cannot be opened")
            await asyncio.shield(self._moving)
            return False
        if reply.changes is not None and reply.changes.seq > state.live.seq:
            live = await asyncio.to_thread(state.live.apply, reply.changes)
            if self.state is state:
                self.state = replace(state, live=live)
        return self.state.generations == state.generations

    async def _move(self, generations: Generations) -> None:
        """Moves to newer generations: loads the index in a thread, while searches go on in the one before."""
        try:
            model = await asyncio.to_thread(self._load, generations, self.state.model)
            self.state = _State(model, model.live(generations.live), generations)
            log.info("serving index %s", generations.folders["index"])
        except ArtifactError as error:
            self._refused = generations
            log.error("cannot move to generations %s: %s", generations.folders, error)
        finally:
            self._moving = None

    def _load(self, generations: Generations, before: Any = None) -> Any:
        encoder = None if before is None else before.encoder
        return self.module.Retriever(self.config, device_of_replica(), generations.folders["index"], encoder=encoder)

    def _check(self) -> None:
        self.state.model.retrieve([self.module.Query(blank_image(), None)], 1)

    def _work(self, requests: list[Any]) -> list[Any]:
        searches = [r for r in requests if isinstance(r, Search)]
        hits = iter(self._search(searches))
        return [next(hits) if isinstance(r, Search) else self._embed(r) for r in requests]

    def _embed(self, items: list[TextAndImage]) -> list[Vectors]:
        encoder = self.state.model.encoder
        images = [encoder.preprocess(open_image(data, self.max_item_pixels)) for _, data in items]
        vectors: list[Vectors] = self.state.model.embed_items([text for text, _ in items], images)
        return vectors

    def _search(self, searches: list[Search]) -> list[SearchReply | Refusal]:
        replies: dict[int, SearchReply | Refusal] = {}
        groups: dict[Any, dict[int, Any]] = defaultdict(dict)  # queries by position, those that one call can do
        for position, s in enumerate(searches):
            image = None if s.image is None or s.by == "text" else self._pixels(s.image)
            if isinstance(image, Refusal):
                replies[position] = image
            else:
                query = self.module.Query(image, None if s.by == "image" else s.text)
                groups[s.k, s.by, s.language, s.text_weight][position] = query
        state = self.state
        for options, queries in groups.items():
            replies |= zip(queries, self._retrieve(state, list(queries.values()), options), strict=True)
        return [replies[position] for position in range(len(searches))]

    def _pixels(self, data: bytes) -> Any:
        """What CLIP is given of an image, or a refusal. One image is decoded at a time."""
        image = open_or_refuse(data, self.max_pixels)
        if isinstance(image, Refusal):
            return image
        pixels = self.state.model.encoder.preprocess(image)
        size = image.width * image.height
        del image
        give_back_memory(size)
        return pixels

    def _retrieve(self, state: _State, queries: list[Any], options: tuple[Any, ...]) -> list[SearchReply | Refusal]:
        """Hits of queries with the same options. A query that cannot be answered is refused, the others are answered.

        Errors of another kind are ours, not the query's, and pass.
        """
        try:
            results = state.model.retrieve(queries, *options, state.live)
        except self.module.QueryError as error:
            if len(queries) == 1:
                return [Refusal("nothing_to_search", str(error), error.field)]
            return [reply for query in queries for reply in self._retrieve(state, [query], options)]
        replies = [[ItemHit(hit.item_id, hit.score, hit.live) for hit in hits] for hits in results]
        return [SearchReply(hits, state.generations) for hits in replies]
