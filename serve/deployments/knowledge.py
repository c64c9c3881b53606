"""The owner of the journal: every change to the knowledge goes through this one replica, and is on disk when it is
acknowledged. Retrievers ask it what has changed, the ingress asks it for what is not in the shards yet.

The journal is the truth, this replica keeps no state of its own but which generations are served.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict

import numpy as np
from comem_ray.knowledge.live.export import export
from comem_ray.knowledge.live.journal import Journal, KeyReused

from comem_ray.artifacts import write_json
from comem_ray.artifacts.lock import LockedError
from comem_ray.config import Config
from comem_ray.knowledge.items import Item
from serve.base import still_there
from serve.messages import ChangesReply, Generations, Refusal, Write
from serve.start import StartError, check_artifacts, in_one_sentence

log = logging.getLogger("ray.serve")

SERVING = "serving.json"  # of the folder live/: what a compaction has moved the service to
LOCK_WAIT_S = 60  # a rolling update starts this replica while the one before it is still closing

READ_ONLY = Refusal("read_only", "this knowledge base cannot be changed over HTTP (live.enabled is false)", None, 403)


class KnowledgeDeployment:
    """Changes to the knowledge, and what they amount to."""

    def __init__(self, config: Config, generations: Generations):
        self.config = config
        with in_one_sentence():
            self._deployed = generations
            self.generations = still_there(config, self._last_served())
            self.journal = _open(config) if config.live.enabled else None
        self._forget(self.generations.live)
        self._writing = asyncio.Lock()

    def _last_served(self) -> Generations:
        """What this deployment served last: a compaction may have moved it on since it was deployed."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            saved = json.loads((self.config.folder("live") / SERVING).read_text(encoding="utf-8"))
            if Generations(**saved["deployed"]) == self._deployed:
                return Generations(**saved["served"])
        return self._deployed

    def _forget(self, upto: int) -> None:
        self.forgotten = upto
        if self.journal is not None:
            self.journal.prune(upto)

    async def changes(self, after: int) -> ChangesReply:
        """What has changed since the change number `after`, and which generations are served now."""
        changes = None if self.journal is None else await asyncio.to_thread(self.journal.changes, after)
        return ChangesReply(changes, self.generations, self.forgotten)

    async def contents(self, item_ids: Sequence[str]) -> dict[str, Item | None]:
        """Items of the journal by id; None for one that was deleted. What it does not know is left out."""
        return {} if self.journal is None else await asyncio.to_thread(self.journal.contents, item_ids)

    async def memory(self, item_ids: Sequence[str], encoder: str) -> dict[str, np.ndarray]:
        """Packed memory (Q, D) by id, of items of the journal that this encoder made."""
        return {} if self.journal is None else await asyncio.to_thread(self.journal.memory, item_ids, encoder)

    async def page(self, before: int | None, limit: int) -> list[tuple[int, Item]]:
        """Items that are not in the shards, the newest first, with the numbers of their changes."""
        if self.journal is None:
            return []
        return await asyncio.to_thread(self.journal.page, before, limit, self.generations.live)

    async def ids(self, known: int) -> tuple[int, dict[str, bool]] | None:
        """The last change's number, and the ids of the journal that are not as in the shards, with whether they are
        there (false: deleted); None where `known` is that number already."""
        if self.journal is None:
            return None if known == 0 else (0, {})
        seq = self.journal.seq
        return None if known == seq else (seq, await asyncio.to_thread(self.journal.ids, self.generations.live))

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
        known = journal.contents([*[i.item_id for i in write.puts], *write.deletes])
        if missing := [i for i in (*write.deletes, *write.replaces) if not _exists(i, known, write)]:
            return Refusal("unknown_item", f"there is no item {missing[0]!r}", "item_id", 404)
        puts = [item for item in write.puts if known.get(item.item_id) != item.content.item]
        new = [i for i in puts if i.item_id in write.replaces or not _exists(i.item_id, known, write)]
        if sum(journal.counts(self.generations.live)) + len(new) + len(write.deletes) > self.config.live.max_changes:
            message = "too many changes are not folded into shards yet: run jobs.compact, then send this again"
            return Refusal("journal_full", message, None, 507)
        start = time.perf_counter()
        try:
            written = journal.write(new, write.deletes, write.key, write.request)
        except KeyReused as error:
            return Refusal("idempotency_key_reused", str(error), "Idempotency-Key", 409)
        log.info("written seq=%d ms=%.1f", written.seq, (time.perf_counter() - start) * 1e3)
        done = "replaced" if write.replaces else "added"
        changed = {i.item_id for i in (write.puts if written.repeated else new)}
        statuses = {i.item_id: done if i.item_id in changed else "unchanged" for i in write.puts}
        return {**statuses, **dict.fromkeys(write.deletes, "deleted")}

    async def export(self) -> int:
        """Writes the live source for jobs.compact; returns the number of the last change in it."""
        if self.journal is None:
            raise StartError("live.enabled is false: there is nothing to fold")
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
        if self.journal is not None:
            self.journal.seq  # noqa: B018 (raises where the file is gone)

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


def _exists(item_id: str, known: dict[str, Item | None], write: Write) -> bool:
    """Whether the item is part of the knowledge: by the journal where it knows, else by the shards."""
    return known[item_id] is not None if item_id in known else item_id in write.in_shards
