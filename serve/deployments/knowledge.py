"""The owner of the journal: every change to the knowledge goes through this one replica, and is on disk when it is
acknowledged. Retrievers ask it what has changed, the ingress asks it for what is not in the shards yet.

The journal is the truth, this replica keeps no state of its own but which generations are served.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict

import numpy as np

from comem_ray.artifacts import StorageError, write_json
from comem_ray.artifacts.lock import LockedError
from comem_ray.config import Config
from comem_ray.knowledge.items import Item
from comem_ray.knowledge.live.journal import Journal, KeyReused, Written
from comem_ray.retrieval.clip import locate
from serve.base import still_there
from serve.local_ports import listen_locally
from serve.messages import ChangesReply, Generations, Refusal, Write
from serve.metrics import KnowledgeMetrics
from serve.start import StartError, check_artifacts, in_one_sentence

log = logging.getLogger("ray.serve")
Version = tuple[int, int]  # the journal's last change, and the last one that the shards hold

SERVING = "serving.json"  # of the folder live/: what a compaction has moved the service to
LOCK_WAIT_S = 60  # a rolling update starts this replica while the one before it is still closing

FULL = Refusal(
    "journal_full", "too many changes are not folded into shards yet: run jobs.compact, then send this again", None, 507
)
READ_ONLY = Refusal("read_only", "this knowledge base cannot be changed over HTTP (live.enabled is false)", None, 403)


class KnowledgeDeployment:
    """Changes to the knowledge, and what they amount to."""

    def __init__(self, config: Config, generations: Generations):
        listen_locally()
        self.config = config
        with in_one_sentence():
            self._deployed = generations
            self.generations = still_there(config, self._last_served())
            self.journal = _open(config) if config.live.enabled else None
            self._refuse_other_clip()
        self._forget(self.generations.live)
        self._writing, self.metrics = asyncio.Lock(), KnowledgeMetrics()

    def _last_served(self) -> Generations:
        """What this deployment served last: a compaction may have moved it on since it was deployed."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            saved = json.loads((self.config.folder("live") / SERVING).read_text(encoding="utf-8"))
            if Generations(**saved["deployed"]) == self._deployed:
                return Generations(**saved["served"])
        return self._deployed

    def _refuse_other_clip(self) -> None:
        """Raises StartError where live items were embedded by another CLIP model: no search could compare them."""
        live = self.journal.changes(self.generations.live).added if self.journal is not None else []
        if live and (other := {vectors.clip for vectors in live} - {locate(self.config.clip).fingerprint}):
            raise StartError(
                f"{len(live)} items that were added over HTTP were embedded by the CLIP model {other.pop()}, the "
                "configuration names another: go back to that model, run jobs.compact, then change it"
            )

    def _forget(self, upto: int) -> None:
        self.forgotten = upto
        if self.journal is not None:
            self.journal.prune(upto)

    async def changes(self, after: int) -> ChangesReply:
        """What has changed since the change number `after`, and which generations are served now."""
        journal = None if after < self.forgotten else self.journal
        changes = None if journal is None else await asyncio.to_thread(journal.changes, after)
        return ChangesReply(changes, self.generations, self.forgotten)

    async def contents(self, item_ids: Sequence[str]) -> dict[str, Item | None]:
        """Items of the journal by id; None for one that was deleted. What it does not know is left out."""
        return {} if self.journal is None else await asyncio.to_thread(self.journal.contents, item_ids)

    async def is_live(self, item_id: str) -> bool:
        """Whether the shards that are served do not hold this item of the journal as it is."""
        numbers = {} if self.journal is None else await asyncio.to_thread(self.journal.numbers, [item_id])
        return numbers.get(item_id, 0) > self.generations.live

    async def memory(self, item_ids: Sequence[str], encoder: str) -> dict[str, np.ndarray]:
        """Packed memory (Q, D) by id, of items of the journal that this encoder made."""
        return {} if self.journal is None else await asyncio.to_thread(self.journal.memory, item_ids, encoder)

    async def page(self, before: int | None, limit: int) -> list[tuple[int, Item]]:
        """Items that are not in the shards, the newest first, with the numbers of their changes."""
        if self.journal is None:
            return []
        return await asyncio.to_thread(self.journal.page, before, limit, self.generations.live)

    async def ids(self, known: Version) -> tuple[Version, dict[str, bool]] | None:
        """The version of this reply, and the ids that differ from the shards, with whether they are there (false:
        deleted); None where `known` is that version already."""
        version = (0 if self.journal is None else self.journal.seq, self.generations.live)
        return None if known == version else (version, await asyncio.to_thread(self._ids))

    def _ids(self) -> dict[str, bool]:
        if self.journal is None:
            return {}
        return {item_id: not deleted for item_id, deleted in self.journal.entries(self.generations.live)}

    async def counts(self) -> tuple[int, int]:
        """Items added, and items deleted or replaced, that are not in the shards yet."""
        return (0, 0) if self.journal is None else self.journal.counts(self.generations.live)

    async def write(self, write: Write) -> dict[str, str] | Refusal:
        """Applies a change and returns, when it is on disk, what became of each item by id."""
        journal = self.journal
        if journal is None:
            return READ_ONLY
        async with self._writing:
            return await asyncio.to_thread(self._write, journal, write)

    def _write(self, journal: Journal, write: Write) -> dict[str, str] | Refusal:
        try:
            if write.key and (earlier := journal.repeated(write.key, write.request)):
                return _statuses(earlier)
            known = journal.contents([*[i.content.item.item_id for i in write.puts], *write.deletes])
            if missing := [i for i in (*write.deletes, *write.replaces) if not _exists(i, known, write)]:
                return Refusal("unknown_item", f"there is no item {missing[0]!r}", "item_id", 404)
            puts = [i for i in write.puts if _is_news(i.content.item, known, write)]
            if (
                sum(journal.counts(self.generations.live)) + len(puts) + len(write.deletes)
                > self.config.live.max_changes
            ):
                return FULL
            done = "replaced" if write.replaces else "added"
            statuses = {i.content.item.item_id: done if i in puts else "unchanged" for i in write.puts}
            statuses |= dict.fromkeys(write.deletes, "deleted")
            start = time.perf_counter()
            written = journal.write(puts, write.deletes, write.key, write.request, json.dumps(statuses))
            self._note(journal, written, time.perf_counter() - start)
            return _statuses(written)
        except KeyReused as error:
            return Refusal("idempotency_key_reused", str(error), "Idempotency-Key", 409)
        except StorageError as error:
            log.error("cannot write the journal: %s", error)
            return Refusal("storage", "the server cannot write to its disk now: nothing was changed", None, 503, 10)

    def _note(self, journal: Journal, written: Written, seconds: float) -> None:
        """One line and some metrics about a write; a warning where the changes should be folded."""
        log.info("written seq=%d ms=%.1f", written.seq, seconds * 1e3)
        done = Counter(_statuses(written).values())
        self.metrics.observe_write(seconds, {c: done[c] for c in ("added", "replaced", "deleted")})
        live, deleted = journal.counts(self.generations.live)
        self.metrics.set_counts(live, deleted, live + deleted)
        if live + deleted >= self.config.live.compact_at:
            log.warning("%d changes are not folded into shards: run jobs.compact", live + deleted)

    async def repeated(self, key: str, request: str) -> dict[str, str] | Refusal | None:
        """What a request with this idempotency key was answered before; None for a new key."""
        if self.journal is None:
            return READ_ONLY
        try:
            earlier = await asyncio.to_thread(self.journal.repeated, key, request)
        except KeyReused as error:
            return Refusal("idempotency_key_reused", str(error), "Idempotency-Key", 409)
        return None if earlier is None else _statuses(earlier)

    async def waiting(self) -> int:
        """How many changes are not in the shards that are served."""
        return sum(await self.counts())

    async def export(self) -> int:
        """Writes the live source for jobs.compact; returns the number of the last change in it."""
        if self.journal is None:
            raise StartError("live.enabled is false: there is nothing to fold")
        from comem_ray.knowledge.live.export import export

        return await asyncio.to_thread(export, self.journal, self.config.folder("live"))

    async def reload(self) -> dict[str, str]:
        """Serves what the folders hold now: from here on every replica moves to it. Returns their generations.

        Changes of the generation before are kept until the next time: a replica may still read it.
        """
        before = self.generations
        self.generations = await asyncio.to_thread(check_artifacts, self.config)
        served = {"deployed": asdict(self._deployed), "served": asdict(self.generations)}
        await asyncio.to_thread(write_json, self.config.folder("live") / SERVING, served)
        await asyncio.to_thread(self._forget, min(before.live, self.generations.live))
        log.info("serving generations %s", self.generations.folders)
        return self.generations.folders

    async def ready(self) -> bool:
        return True

    def check_health(self) -> None:
        """Raises where the journal cannot be read, or takes no more writes until it is opened again."""
        if self.journal is not None:
            self.journal.counts(self.generations.live)
            if self.journal.fault:
                raise RuntimeError(self.journal.fault)

    def __del__(self) -> None:
        if getattr(self, "journal", None) is not None:
            self.journal.close()  # type: ignore[union-attr]


def _open(config: Config) -> Journal:
    """The journal. Waits for a replica that is closing it. Raises StartError where another process holds it."""
    end = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return Journal(config.folder("live"))
        except LockedError as error:
            if time.monotonic() > end:
                raise StartError(str(error)) from None
            time.sleep(0.2)


def _statuses(written: Written) -> dict[str, str]:
    statuses: dict[str, str] = json.loads(written.reply)
    return statuses


def _is_news(item: Item, known: dict[str, Item | None], write: Write) -> bool:
    """Whether an item that is put differs from what there is. That of the shards is known by its id alone."""
    if item.item_id in known:
        return known[item.item_id] != item
    return item.item_id in write.replaces or item.item_id not in write.in_shards


def _exists(item_id: str, known: dict[str, Item | None], write: Write) -> bool:
    """Whether the item is part of the knowledge: by the journal where it knows, else by the shards."""
    return known[item_id] is not None if item_id in known else item_id in write.in_shards
