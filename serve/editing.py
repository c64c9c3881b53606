"""Changes to the knowledge over HTTP, and the list of what there is: the way of such a request to the deployments.

An item that is added becomes vectors (retriever) and memory (encoder) first, then it is written to the journal. So it
is complete in the moment in which it is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ray.serve.handle import DeploymentHandle

from comem_ray.config import Config
from comem_ray.knowledge.items import Item
from comem_ray.knowledge.live.items import ItemRefused, LiveContent, LiveItem, Upload, make_item
from comem_ray.retrieval.clip import locate
from serve.http.checks import Checks
from serve.http.errors import ApiError, reply_of
from serve.http.item_bodies import ItemBody
from serve.messages import Write
from serve.reading import KnowledgeReader

Changed = tuple[tuple[int, int], dict[str, bool]]  # a version, and what of the journal differs from the shards
MAKERS = 1  # items that are made at once: a decoded image may take 500 MB


class KnowledgeEditor:
    """Adds, replaces and deletes items."""

    def __init__(
        self,
        config: Config,
        reader: KnowledgeReader,
        knowledge: DeploymentHandle,
        retriever: DeploymentHandle,
        encoder: DeploymentHandle,
    ):
        self.config, self.checks, self.reader = config, Checks(config), reader
        self._write, self._repeated = knowledge.write, knowledge.repeated
        self._embed, self._encode = retriever.embed, encoder.encode
        self._clip = locate(config.clip).fingerprint
        self._making = asyncio.Semaphore(MAKERS)

    async def add(self, bodies: Sequence[ItemBody], key: str | None, digest: str) -> dict[str, str]:
        """Adds items, all or none. Returns what became of each by id, in their order. Raises ApiError."""
        if earlier := await self._earlier(key, digest):
            return earlier
        limit = self.config.live.max_items_per_request
        if len(bodies) > limit:
            raise ApiError(422, "too_many_items", f"{len(bodies):,} items, the limit is {limit:,} per request", "items")
        contents = [await self._make(body, f"items.{n}.") for n, body in enumerate(bodies)]
        contents = list({content.item.item_id: content for content in contents}.values())
        items = await self._complete(contents)
        return await self._apply(Write(items, key=key, request=digest))

    async def replace(self, item_id: str, body: ItemBody, key: str | None, digest: str) -> dict[str, str]:
        """Gives an item another content. Raises ApiError, 404 where there is no such item."""
        if earlier := await self._earlier(key, digest):
            return earlier
        await self._require(item_id)
        items = await self._complete([await self._make(body, "", item_id)])
        return await self._apply(Write(items, replaces=[item_id], key=key, request=digest))

    async def delete(self, item_id: str, key: str | None, digest: str) -> dict[str, str]:
        """Deletes an item. Raises ApiError, 404 where there is no such item."""
        return await self._apply(Write(deletes=[item_id], key=key, request=digest))

    async def _earlier(self, key: str | None, digest: str) -> dict[str, str] | None:
        """What this request was answered when it came before, under the same idempotency key."""
        return None if key is None else await reply_of(self._repeated.remote(key, digest), "the journal")

    async def _apply(self, write: Write) -> dict[str, str]:
        ids = [*[i.content.item.item_id for i in write.puts], *write.deletes]
        in_shards = [i for i in ids if i in self.reader.base.items]
        write = Write(write.puts, write.deletes, write.replaces, in_shards, write.key, write.request)
        return await reply_of(self._write.remote(write), "the journal")

    async def _require(self, item_id: str) -> None:
        if await self.reader.item(item_id, image=False) is None:
            raise ApiError(404, "unknown_item", f"there is no item {item_id[:64]!r}", "item_id")

    async def _make(self, body: ItemBody, prefix: str, item_id: str | None = None) -> LiveContent:
        """The item of a body. Raises ApiError, naming the field."""
        image = self.checks.image(body.image, f"{prefix}image")
        assert image is not None
        upload = Upload(image, body.title or "", body.text or "", body.language, body.page_url)
        try:
            async with self._making:
                return await asyncio.to_thread(make_item, upload, self.config.ingest.images, item_id)
        except ItemRefused as error:
            raise ApiError(422, error.reason, error.detail, f"{prefix}{error.field}") from error

    async def _complete(self, contents: Sequence[LiveContent]) -> list[LiveItem]:
        """The items with their vectors and their memory."""
        parts = [(content.item.text, content.item.image) for content in contents]
        vectors, memory = await asyncio.gather(
            reply_of(self._embed.remote(parts), "the retriever"),
            reply_of(self._encode.remote(parts), "the memory encoder"),
        )
        return [
            LiveItem(content, vectors[n], memory[n], self._clip, self.reader.encoder)
            for n, content in enumerate(contents)
        ]


class KnowledgeList:
    """The items there are: those that are not in the shards yet, the newest first, then the shards in their order."""

    def __init__(self, reader: KnowledgeReader, knowledge: DeploymentHandle):
        self.reader, self._page, self._ids = reader, knowledge.page, knowledge.ids
        self._changed: Changed = ((-1, -1), {})
        self._total: tuple[object, int] = (None, 0)  # what it was counted for, and the count

    async def page(
        self, cursor: str | None, limit: int, language: str | None
    ) -> tuple[list[tuple[Item, bool]], str | None, int]:
        """Items (with whether they are live) from a cursor on, the next cursor, and how many items there are.

        A page may hold fewer than `limit` although more follow: deleted items and other languages are left out.
        Raises ApiError for a wrong cursor.
        """
        part, position = _parsed(cursor)
        changed = await self._changes()
        live: list[tuple[int, Item]] = []
        if part == "live":
            live = await reply_of(self._page.remote(position, limit), "the journal")
        items, following = [(item, True) for _, item in live], f"live:{live[-1][0]}" if live else None
        if len(live) < limit:
            start = (position or 0) if part == "base" else 0
            shards, following = await self._from_shards(start, limit - len(live), changed)
            items += [(item, False) for item in shards]
        listed = [(i, is_live) for i, is_live in items if language in (None, i.language)]
        return listed, following, await asyncio.to_thread(self._count, changed)

    def _count(self, changed: dict[str, bool]) -> int:
        """How many items there are; counted once per change."""
        base = self.reader.base
        if self._total[0] != (state := (self._changed[0], base.generations)):
            self._total = state, len(base.items) - sum(i in base.items for i in changed) + sum(changed.values())
        return self._total[1]

    async def _from_shards(self, start: int, count: int, changed: dict[str, bool]) -> tuple[list[Item], str | None]:
        """At most `count` items of the shards, from position `start` on, and the next cursor."""
        store = self.reader.base.items
        stop = min(start + count, len(store))
        ids = [i for i in store.ids_between(start, stop) if i not in changed]
        return await self.reader.read(store.get, ids, False), f"base:{stop}" if stop < len(store) else None

    async def _changes(self) -> dict[str, bool]:
        """Ids that the journal knows, with whether they are there (false: deleted)."""
        news: Changed | None = await reply_of(self._ids.remote(self._changed[0]), "the journal")
        if news is not None:
            self._changed = news
        return self._changed[1]


def _parsed(cursor: str | None) -> tuple[str, int | None]:
    if cursor is None:
        return "live", None
    part, _, position = cursor.partition(":")
    if part not in ("live", "base") or not position.isdecimal() or len(position) > 15:
        raise ApiError(
            422, "invalid_cursor", "cursor is not one of this API: take next_cursor of the page before", "cursor"
        )
    return part, int(position)
