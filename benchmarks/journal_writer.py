"""The process that benchmarks.journal_kills kills: threads that write to a journal and say so through a pipe.

Items, replacements, deletions, several at once, some with an idempotency key that is new and some with one that was
used. What an item holds follows from the number of its content, so that the parent knows every byte of it.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comem_ray.knowledge.items import Item
from comem_ray.knowledge.live.items import LiveContent, LiveItem
from comem_ray.knowledge.live.journal import Journal

ITEMS = 200  # ids that the writes share, so that most of them replace or delete something
THREADS = 6
ENCODER = "encoder"


@dataclass
class Write:
    """A write: the items it puts, each (item_id, number of its content), and the ids it deletes."""

    puts: list[tuple[str, int]]
    deletes: list[str]
    key: str | None
    seq: int | None = None  # of its last change, once it is acknowledged

    @property
    def changes(self) -> list[tuple[str, int | None]]:
        """(item_id, number of its content, None for a deletion) in the order of their sequence numbers."""
        return [*self.puts, *((item_id, None) for item_id in self.deletes)]


def live_item(item_id: str, number: int) -> LiveItem:
    """The item with content `number`: the same bytes each time."""
    rng = np.random.default_rng(number)
    image = rng.bytes(int(rng.integers(1_000, 60_000)))
    text = f"Item {number}: " + "text " * int(rng.integers(400))
    item = Item(item_id, "en", f"Item {number}", text, None, None, image, 512, 384)
    vectors = {kind: rng.standard_normal(64).astype(np.float16).astype(np.float32) for kind in ("image", "text")}
    memory = rng.integers(-(2**14), 2**14, (8, 64)).astype(np.int16)
    return LiveItem(LiveContent(item), vectors, memory, "clip", ENCODER)


class Child:
    """The process that writes until it is killed."""

    def __init__(self, folder: Path, pipe: int, seed: int, used: Sequence[Write]):
        self._journal, self._pipe, self._used = Journal(folder), pipe, used
        self._seed, self._lock, self._numbers = seed, threading.Lock(), 0
        for thread in range(THREADS):
            threading.Thread(target=self._work, args=(random.Random(f"{seed} {thread}"),)).start()

    def _work(self, rng: random.Random) -> None:
        while True:
            with self._lock:
                self._numbers += 1
                number = self._seed * 100_000 + self._numbers * 8  # a write has 8 contents at most
            write = self._random_write(rng, number)
            self._say({"sent": number, "puts": write.puts, "deletes": write.deletes, "key": write.key})
            items = [live_item(*put) for put in write.puts]
            start = time.perf_counter()
            written = self._journal.write(items, write.deletes, write.key, "request", reply=f"reply {number}")
            ms = (time.perf_counter() - start) * 1e3
            self._say(
                {"done": number, "seq": written.seq, "repeated": written.repeated, "reply": written.reply, "ms": ms}
            )

    def _random_write(self, rng: random.Random, number: int) -> Write:
        if self._used and rng.random() < 0.1:  # a client that tries again
            again = rng.choice(self._used)
            return Write(again.puts, again.deletes, again.key)
        ids = [f"{i:024x}" for i in rng.sample(range(ITEMS), rng.choice([1, 1, 1, 2, 5]))]
        kept = rng.randrange(len(ids) + 1) if rng.random() < 0.4 else len(ids)
        puts = [(item_id, number + n) for n, item_id in enumerate(ids[:kept])]
        return Write(puts, ids[kept:], f"key {number}" if rng.random() < 0.3 else None)

    def _say(self, message: dict[str, Any]) -> None:
        os.write(self._pipe, json.dumps(message).encode() + b"\n")  # below PIPE_BUF: whole or not at all
