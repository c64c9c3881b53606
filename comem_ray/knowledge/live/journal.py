"""The journal: changes to the knowledge that are on disk when `write` returns, in an SQLite database of one process.

There is one row per item, for its last change: an item that was put, or a deletion. Every change has a sequence number
that is never used again. Threads may share a journal. Writers that come together share one commit. Knows nothing of
the knowledge base beside it, nor of HTTP.

Letters: C width of the CLIP space, Q queries (8), D model width.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Lock, RLock
from typing import Any

import numpy as np

from comem_ray.artifacts import ArtifactError, StorageError
from comem_ray.artifacts.lock import clear_holder
from comem_ray.knowledge.items import Item
from comem_ray.knowledge.live.database import FILE, HOLDER, database_errors, open_database
from comem_ray.knowledge.live.items import LiveItem
from comem_ray.knowledge.live.records import (
    Record,
    SealError,
    check_record,
    deletion_record,
    item_record,
    read_item,
    read_memory,
    read_vectors,
)

KEY_SECONDS = 24 * 3600.0
"""How long an idempotency key is kept."""

_IDS_PER_READ = 500  # SQLite bounds the parameters of a statement
_COLUMNS = (
    "item_id", "first", "deleted", "language", "clip", "encoder", "queries", "image_vector", "text_vector", "content",
    "memory", "image",
)  # fmt: skip
_PUT = f"INSERT INTO changes ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{c}' for c in _COLUMNS)})"


class KeyReused(ValueError):
    """An idempotency key that came with another request before."""


@dataclass(frozen=True)
class Written:
    """What a write did: the sequence number of its last change, and the `reply` that the caller kept with its key.

    `repeated`: the key was known, and nothing was written this time.
    """

    seq: int
    reply: str = ""
    repeated: bool = False


@dataclass(frozen=True)
class Vectors:
    """The vectors of a live item by kind ("image", "text"), each (C,) float32, and the CLIP model that made them."""

    item_id: str
    language: str
    vectors: dict[str, np.ndarray]
    clip: str


@dataclass(frozen=True)
class Changes:
    """The changes up to `seq`, each item once: in `added` if it was put last, in `removed` if it was deleted last.

    Both are in the order of their last change.
    """

    seq: int
    added: list[Vectors]
    removed: list[str]


@dataclass(eq=False)
class _Waiting:
    """A write that waits to be committed. `outcome`: what its caller gets."""

    records: list[Record]
    key: str | None
    request: str
    reply: str
    outcome: Written | BaseException | None = field(default=None)


class Journal:
    """The journal in `folder`, made if it is not there. All of it is read and checked once.

    Raises LockedError if another process has it open, ArtifactError if it is damaged, StorageError where the filesystem
    refuses. Each method may raise the latter two.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / FILE
        self._connection = open_database(folder)
        self._lock = RLock()  # one thread at a time uses the connection
        self._turn = Condition()
        self.exporting = Lock()
        """Held by an export: there is one at a time."""
        self._queue: list[_Waiting] = []
        self._committing, self._closed, self._fault = False, False, ""
        try:
            self._check()
            self._seq = self._last_seq()
            self._pruned: int = self._select("SELECT upto FROM pruned")[0]["upto"]
        except BaseException:
            self.close()
            raise

    @property
    def seq(self) -> int:
        """The sequence number of the last committed change, 0 before the first."""
        return self._seq

    @property
    def fault(self) -> str:
        """Why nothing can be written until the journal is opened again; empty while it can."""
        return self._fault

    def write(
        self,
        puts: Sequence[LiveItem],
        deletes: Sequence[str],
        key: str | None = None,
        request: str = "",
        reply: str = "",
    ) -> Written:
        """Puts items, then deletes others, all or none. It is on disk, power loss included, when this returns.

        An item that is put takes the place of one with its id. `key` is an idempotency key, kept for KEY_SECONDS with
        the digest of its `request` and the caller's `reply`: with both known, nothing is written. Raises KeyReused if
        the key came with another request.
        """
        records = [*map(item_record, puts), *map(deletion_record, deletes)]
        waiting = _Waiting(records, key, request, reply)
        with self._turn:
            self._queue.append(waiting)
            while waiting.outcome is None and self._committing:
                self._turn.wait()
            batch: list[_Waiting] = []
            if waiting.outcome is None:  # nobody commits: this thread does, for all that wait
                batch, self._queue, self._committing = self._queue, [], True
        if batch:
            self._commit(batch)
        if isinstance(waiting.outcome, BaseException):
            raise waiting.outcome
        assert waiting.outcome is not None, "every write that waits has an outcome when the commit ends"
        return waiting.outcome

    def repeated(self, key: str, request: str) -> Written | None:
        """What the first write with this key did; None for a new key. Raises KeyReused for another request."""
        with self._reading():
            return self._earlier(key, request)

    def changes(self, after: int) -> Changes:
        """The changes with a sequence number above `after`.

        Raises ArtifactError if some of them were pruned: who asks does not have the shards that they went into.
        """
        if after < self._pruned:
            raise ArtifactError(
                f"the journal {self.path} keeps the changes after {self._pruned:,}, the earlier ones are in shards; "
                f"the items that are served hold those up to {after:,}: run jobs.ingest and the stages after it"
            )
        if after >= self._seq:
            return Changes(self._seq, [], [])
        columns = "seq, item_id, deleted, language, clip, image_vector, text_vector"
        with self._reading():
            rows = self._select(f"SELECT {columns} FROM changes WHERE seq > ? ORDER BY seq", after)
            added = [
                Vectors(row["item_id"], row["language"], read_vectors(row), row["clip"])
                for row in rows
                if not row["deleted"]
            ]
            return Changes(self._seq, added, [row["item_id"] for row in rows if row["deleted"]])

    def contents(self, ids: Sequence[str], image: bool = True) -> dict[str, Item | None]:
        """The items of those `ids` that the journal knows, None for a deleted one. Without `image` it is not read."""
        columns = f"item_id, deleted, content{', image' if image else ''}"
        with self._reading():
            rows = self._select_ids(columns, ids)
            return {row["item_id"]: None if row["deleted"] else read_item(row, image) for row in rows}

    def numbers(self, ids: Sequence[str]) -> dict[str, int]:
        """The sequence number of the last change of those `ids` that the journal knows."""
        with self._reading():
            return {row["item_id"]: row["seq"] for row in self._select_ids("item_id, seq", ids)}

    def memory(self, ids: Sequence[str], encoder: str) -> dict[str, np.ndarray]:
        """The memory (Q, D) int16 of those `ids` that this encoder made it of."""
        with self._reading():
            rows = self._select_ids("item_id, encoder, queries, memory", ids)
            return {row["item_id"]: read_memory(row) for row in rows if row["encoder"] == encoder}

    def page(self, before: int | None, limit: int, after: int) -> list[tuple[int, Item]]:
        """At most `limit` live items with `after` < seq < `before`, newest first, each with its seq and no image."""
        condition, values = ("AND seq < ?", [before]) if before is not None else ("", [])
        query = f"SELECT seq, item_id, content FROM changes WHERE deleted = 0 AND seq > ? {condition}"
        with self._reading():
            rows = self._select(f"{query} ORDER BY seq DESC LIMIT ?", after, *values, limit)
            return [(row["seq"], read_item(row, image=False)) for row in rows]

    def counts(self, after: int) -> tuple[int, int]:
        """Live items and deletions with a sequence number above `after`."""
        query = "SELECT COUNT(*) AS n FROM changes WHERE deleted = ? AND seq > ?"
        with self._reading():
            live, deletions = (self._select(query, deleted, after)[0]["n"] for deleted in (0, 1))
        return live, deletions

    def entries(self, after: int) -> list[tuple[str, bool]]:
        """(id, whether it is deleted) of every item that changed after `after`, in the order of first addition."""
        with self._reading():
            rows = self._select("SELECT item_id, deleted FROM changes WHERE seq > ? ORDER BY first, seq", after)
            return [(row["item_id"], bool(row["deleted"])) for row in rows]

    def prune(self, upto: int) -> None:
        """Forgets the changes up to `upto`, which are in shards, and gives the disk back."""
        with self._lock, database_errors(self.path):
            with self._transaction():
                self._connection.execute("DELETE FROM changes WHERE seq <= ?", (upto,))
                self._connection.execute("UPDATE pruned SET upto = MAX(upto, ?)", (min(upto, self._seq),))
            self._pruned = self._select("SELECT upto FROM pruned")[0]["upto"]
            free, pages = (self._select(f"PRAGMA {name}")[0][name] for name in ("freelist_count", "page_count"))
            if 2 * free > pages:  # what is left is written again in little time
                self._connection.execute("VACUUM")

    def close(self) -> None:
        """Lets another process open the journal."""
        with self._lock, database_errors(self.path):
            if not self._closed:
                clear_holder(self.folder / HOLDER)  # before another process can write itself there
                self._connection.close()
            self._closed = True

    def _commit(self, batch: list[_Waiting]) -> None:
        """Commits the writes of `batch` in one transaction and gives each its outcome."""
        outcomes: list[Written | BaseException] = []
        try:
            with self._lock, database_errors(self.path):
                if self._fault:
                    raise StorageError(self._fault)
                with self._transaction():
                    outcomes = [self._apply(waiting) for waiting in batch]
                self._seq = self._last_seq()
        except BaseException as error:
            outcomes = [error] * len(batch)
        with self._turn:
            for waiting, outcome in zip(batch, outcomes, strict=True):
                waiting.outcome = outcome
            self._committing = False
            self._turn.notify_all()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commits what the block does; undoes it where anything is raised."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            if getattr(error, "sqlite_errorname", "").startswith("SQLITE_IOERR"):
                # A flush that failed once may seem to succeed the next time, with nothing on disk.
                self._fault = f"cannot write {self.path}: its disk failed before ({error}). Open it again"
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _apply(self, waiting: _Waiting) -> Written | KeyReused:
        """Does one write within a transaction. A key that was reused changes nothing."""
        try:
            earlier = None if waiting.key is None else self._earlier(waiting.key, waiting.request)
        except KeyReused as error:
            return error
        if earlier is not None:
            return earlier
        for record in waiting.records:
            self._put(record)
        written = Written(self._last_seq(), waiting.reply)
        if waiting.key is not None:
            now = time.time()
            self._connection.execute("DELETE FROM requests WHERE at < ?", (now - KEY_SECONDS,))
            self._connection.execute(
                "INSERT INTO requests (key, request, seq, reply, at) VALUES (?, ?, ?, ?, ?)",
                (waiting.key, waiting.request, written.seq, written.reply, now),
            )
        return written

    def _put(self, record: Record) -> None:
        """The change of one item in place of its earlier one. An item that is replaced keeps its first addition."""
        item_id, deleted = record["item_id"], record["deleted"]
        earlier = self._select("SELECT first, deleted FROM changes WHERE item_id = ?", item_id)
        first = self._last_seq() + 1
        if earlier and not deleted and not earlier[0]["deleted"]:
            first = earlier[0]["first"]
        self._connection.execute("DELETE FROM changes WHERE item_id = ?", (item_id,))
        self._connection.execute(_PUT, {**record, "first": first})

    def _earlier(self, key: str, request: str) -> Written | None:
        rows = self._select(
            "SELECT request, seq, reply FROM requests WHERE key = ? AND at >= ?", key, time.time() - KEY_SECONDS
        )
        if not rows:
            return None
        if rows[0]["request"] != request:
            raise KeyReused(f"the idempotency key {key[:100]!r} came with another request before: take a new one")
        return Written(rows[0]["seq"], rows[0]["reply"], repeated=True)

    def _last_seq(self) -> int:
        return int(self._select("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")[0]["seq"])

    def _check(self) -> None:
        """Raises ArtifactError where the file, or what is in it, is not what was written."""
        with self._reading():
            [row] = self._select("PRAGMA integrity_check(1)")
            if row["integrity_check"] != "ok":
                raise SealError(" ".join(row["integrity_check"].split()))
            for row in self._connection.execute("SELECT * FROM changes ORDER BY seq"):
                check_record(row)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, database_errors(self.path):
            yield

    def _select(self, query: str, *values: Any) -> list[dict[str, Any]]:
        return self._connection.execute(query, values).fetchall()

    def _select_ids(self, columns: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for start in range(0, len(ids), _IDS_PER_READ):
            some = ids[start : start + _IDS_PER_READ]
            parameters = ", ".join("?" * len(some))
            rows += self._select(f"SELECT {columns} FROM changes WHERE item_id IN ({parameters})", *some)
        return rows
