"""What the ingress reads of the knowledge: from the shards, or from the journal's owner what is not in them yet.

A hit of an index that is of other generations than the shards here is looked up in the journal first: it may have been
replaced in between. The owner keeps the changes of one generation more for that.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ray.serve.handle import DeploymentHandle
from torch import Tensor

from comem_ray.artifacts import ArtifactError
from comem_ray.config import Config
from comem_ray.knowledge.items import Item
from comem_ray.knowledge.schema import content_digest
from comem_ray.model.adapter import encoder_fingerprint
from serve.base import Base, still_there
from serve.http.errors import knowledge_missing, log, reply_of, restarting
from serve.messages import Generations, SearchReply, unpack_memory
from serve.metrics import IngressMetrics

T = TypeVar("T")
KEPT_MEMORIES = 256  # of items that no store holds: 15 MB at 7B


class KnowledgeReader:
    """Items and memory by id, of the shards and of the journal."""

    def __init__(
        self, config: Config, generations: Generations, knowledge: DeploymentHandle, encoder: DeploymentHandle
    ):
        self.config, self.metrics = config, IngressMetrics()
        self.base = Base(config, still_there(config, generations))
        self.encoder = encoder_fingerprint(config)
        self._contents, self._is_live = knowledge.contents, knowledge.is_live
        self._live_memory, self._encode = knowledge.memory, encoder.encode
        self._encoded: OrderedDict[bytes, Tensor] = OrderedDict()  # memories that no store holds
        self._moving: asyncio.Task[None] | None = None
        self._avoided: list[Generations] = []  # that it has left, or that cannot be opened

    async def items(self, reply: SearchReply, image: bool) -> dict[str, Item]:
        """The items of a search by id; without those that were deleted since."""
        journal = await self._in_journal(self._to_look_up(reply))
        items = {i: item for i, item in journal.items() if item is not None}
        rest = [hit.item_id for hit in reply.hits if hit.item_id not in journal]
        base = await self._base_of(reply, rest)
        return items | {i.item_id: i for i in await self.read(base.items.get, rest, image)}

    async def item(self, item_id: str, image: bool) -> tuple[Item, bool] | None:
        """One item as it is now, and whether it is live; None if there is none of that id."""
        journal = await self._in_journal([item_id])
        if item_id in journal:
            item = journal[item_id]
            return None if item is None else (item, await reply_of(self._is_live.remote(item_id), "the journal"))
        base = self.base
        return ((await self.read(base.items.get, [item_id], image))[0], False) if item_id in base.items else None

    async def memory(self, reply: SearchReply) -> dict[str, Tensor]:
        """Memory (Q, D) by id of the hits: stored, live, or encoded now. An item that was deleted since has none."""
        candidates = self._to_look_up(reply)
        live = await self._stored_live(candidates)
        journal = await self._in_journal([i for i in candidates if i not in live])
        rest = [hit.item_id for hit in reply.hits if hit.item_id not in live and hit.item_id not in journal]
        base = await self._base_of(reply, rest)
        stored = await self.read(base.store.get_stored, rest)
        items = [item for item in journal.values() if item is not None]
        if missing := [i for i in rest if i not in stored]:
            items += await self.read(base.items.get, missing, True)
        self.metrics.add_memory_items("store", len(stored))
        self.metrics.add_memory_items("live", len(live))
        return {**stored, **live, **await self._encode_missing(items)}

    def _to_look_up(self, reply: SearchReply) -> list[str]:
        """Ids whose content may be in the journal and not in the shards here."""
        self._follow(reply.generations)
        elsewhere = reply.generations != self.base.generations
        return [hit.item_id for hit in reply.hits if hit.live or elsewhere]

    async def _in_journal(self, item_ids: Sequence[str]) -> dict[str, Item | None]:
        return await reply_of(self._contents.remote(item_ids), "the journal") if item_ids else {}

    async def _stored_live(self, item_ids: Sequence[str]) -> dict[str, Tensor]:
        if not item_ids:
            return {}
        packed = await reply_of(self._live_memory.remote(item_ids, self.encoder), "the journal")
        return {i: unpack_memory(memory) for i, memory in packed.items()}

    async def _base_of(self, reply: SearchReply, item_ids: Sequence[str]) -> Base:
        """The shards that hold these items: those here, or those of the reply's generations, once they are open."""
        base = self.base
        if all(i in base.items for i in item_ids):
            return base
        if self._moving is not None:
            await asyncio.shield(self._moving)
        if all(i in self.base.items for i in item_ids):
            return self.base
        raise restarting("the knowledge base is just moving to a newer generation")

    def _follow(self, generations: Generations) -> None:
        """Starts to open newer generations, once a retriever has moved there. Others may still be behind."""
        if generations not in (self.base.generations, *self._avoided) and self._moving is None:
            self._moving = asyncio.create_task(self._move(generations))

    async def _move(self, generations: Generations) -> None:
        try:
            newer = await asyncio.to_thread(Base, self.config, generations)
            self._avoided.append(self.base.generations)
            self.base = newer
            self._encoded.clear()
            log.info("serving generations %s", generations.folders)
        except ArtifactError as error:
            self._avoided.append(generations)
            log.error("cannot move to generations %s: %s", generations.folders, error)
        finally:
            self._moving = None

    async def _encode_missing(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Memory (Q, D) by id of items that no store holds; the last KEPT_MEMORIES of them are kept, by content."""
        keys = {i.item_id: content_digest(i.text, i.image or b"") for i in items}
        missing = [i for i in items if keys[i.item_id] not in self._encoded]
        self.metrics.add_memory_items("kept", len(items) - len(missing))
        self.metrics.add_memory_items("encoded", len(missing))
        if missing:
            contents = [(item.text, item.image) for item in missing]
            memory = unpack_memory(await reply_of(self._encode.remote(contents), "the memory encoder"))
            self._encoded |= zip((keys[i.item_id] for i in missing), memory, strict=True)
        rows = {item_id: self._encoded[key] for item_id, key in keys.items()}
        while len(self._encoded) > KEPT_MEMORIES:
            self._encoded.popitem(last=False)
        return rows

    async def read(self, read: Callable[..., T], *arguments: Any) -> T:
        """Reads files in a thread. Raises ApiError (503) where their folder is gone: it may come back."""
        try:
            return await asyncio.to_thread(read, *arguments)
        except (OSError, ArtifactError):
            if missing := self.base.missing():
                raise knowledge_missing(missing) from None
            raise
