"""The journal of live knowledge under kill -9: is every acknowledged write there, and nothing that was never sent?

    python -m benchmarks.journal_kills --kills 300

A child process writes to the journal from several threads (benchmarks.journal_writer). It says each write before it is
sent and after it returned. The parent kills it at a random moment, opens the journal, and compares it with what the
child said. A write that was sent and not acknowledged may be there or not, but whole. The same journal lives through
all the kills, with a prune now and then. The child is forked, so a kill costs milliseconds. A kill is no loss of power:
it leaves the page cache. For that the journal flushes every commit (tests/knowledge/live/test_journal.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import select
import shutil
import signal
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.journal_writer import ENCODER, ITEMS, Child, Write, live_item
from comem_ray.knowledge.live.journal import Journal

LONGEST_S = 0.6  # a child lives at most so long after its fork
PRUNE_EVERY = 10  # kills


@dataclass
class Figures:
    """What the kills gave. `torn`: writes of which a part is there. `faults`: each violation, in words."""

    kills: int = 0
    sent: int = 0
    acknowledged: int = 0
    repeated: int = 0
    in_flight: int = 0
    in_flight_there: int = 0
    lost: int = 0
    phantom: int = 0
    torn: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    writing_s: float = 0
    seconds: float = 0
    faults: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The counts, with the latency of a commit in milliseconds and the acknowledged writes per second."""
        latencies = sorted(self.latencies_ms) or [0.0]
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        return {
            **counts,
            "commit_p50_ms": round(statistics.median(latencies), 2),
            "commit_p99_ms": round(latencies[int(0.99 * (len(latencies) - 1))], 2),
            "writes_per_s": round(self.acknowledged / max(self.writing_s, 1e-9), 1),
            "seconds": round(self.seconds, 1),
            "faults": self.faults,
        }


class Killer:
    """Starts children, kills them, and holds the journal against what they said."""

    def __init__(self, folder: Path, seed: int):
        self._folder, self._rng, self._seed = folder, random.Random(seed), seed
        self._rows: dict[str, tuple[int, int | None]] = {}  # by id: seq, number of the content
        self._keys: dict[str, Write] = {}
        self._seq = 0
        self.figures = Figures()

    def run(self, kills: int) -> Figures:
        start = time.perf_counter()
        for number in range(kills):
            sent, done = self._life(number)
            self.figures.kills += 1
            self._check(sent, done, prune=number % PRUNE_EVERY == PRUNE_EVERY - 1)
        self.figures.seconds = time.perf_counter() - start
        return self.figures

    def _life(self, number: int) -> tuple[dict[int, Write], dict[int, dict[str, Any]]]:
        """One child from its fork to its death: the writes it sent and the messages of those that returned."""
        read, write = os.pipe()
        seed, used = self._seed * 1_000 + number, list(self._keys.values())
        pid = os.fork()
        if pid == 0:
            try:
                os.close(read)
                Child(self._folder, write, seed, used)
                threading.Event().wait()
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        os.close(write)
        text, writing_s = _read_until(read, time.monotonic() + self._rng.uniform(0, LONGEST_S), pid)
        self.figures.writing_s += writing_s
        messages = [json.loads(line) for line in text.splitlines()]
        sent = {
            m["sent"]: Write([(i, n) for i, n in m["puts"]], m["deletes"], m["key"]) for m in messages if "sent" in m
        }
        done = {m["done"]: m for m in messages if "done" in m}
        self.figures.latencies_ms += [m["ms"] for m in done.values()]
        return sent, done

    def _check(self, sent: dict[int, Write], done: dict[int, dict[str, Any]], prune: bool) -> None:
        figures, before = self.figures, self._seq
        # Half of the time a copy is checked, so that the next child finds what the kill left.
        folder = self._folder if prune or self._rng.random() < 0.5 else self._folder.with_name("copy")
        if folder != self._folder:
            shutil.copytree(self._folder, folder)
        journal = Journal(folder)  # checks the file and every row
        acknowledged = self._acknowledged(sent, done, before)
        in_flight = [write for number, write in sent.items() if number not in done]
        figures.sent += len(sent)
        figures.acknowledged += len(done)
        figures.in_flight += len(in_flight)
        newest = max([before, *(write.seq or 0 for write in acknowledged)])
        if journal.seq < newest:
            self._fault(f"the sequence went back from {newest} to {journal.seq}")
        for write in sorted(acknowledged, key=lambda w: w.seq or 0):
            self._take(write)
        self._check_rows(journal, in_flight)
        self._check_keys(journal, in_flight)
        self._seq = journal.seq
        if prune:
            upto = self._rng.randint(0, self._seq)
            journal.prune(upto)
            self._rows = {item_id: row for item_id, row in self._rows.items() if row[0] > upto}
        journal.close()
        if folder != self._folder:
            shutil.rmtree(folder)

    def _acknowledged(self, sent: dict[int, Write], done: dict[int, dict[str, Any]], before: int) -> list[Write]:
        """The writes that were acknowledged and did something, with their sequence numbers."""
        writes, seqs = [], set[int]()
        for number, message in done.items():
            write = sent[number]
            if message["repeated"]:
                self.figures.repeated += 1
                first = self._keys.get(write.key or "")
                if first is not None and first.seq != message["seq"]:
                    self._fault(f"{write.key} was written at {first.seq}, its repetition says {message['seq']}")
                continue
            if write.key in self._keys:
                self._fault(f"{write.key} was written twice")
            if message["seq"] <= before or message["seq"] in seqs:
                self._fault(f"sequence number {message['seq']} was used before")
            seqs.add(message["seq"])
            write.seq = message["seq"]
            writes.append(write)
        return writes

    def _take(self, write: Write) -> None:
        assert write.seq is not None, "of an acknowledged write"
        first = write.seq - len(write.changes) + 1
        for n, (item_id, number) in enumerate(write.changes):
            self._rows[item_id] = first + n, number
        if write.key is not None:
            self._keys[write.key] = write

    def _check_rows(self, journal: Journal, in_flight: list[Write]) -> None:
        """Holds every item against the last acknowledged change; what differs must be one of those in flight."""
        stored = read_rows(journal)
        bases: dict[int, int] = {}  # by write in flight that is there: the sequence number of its first change
        for item_id, (seq, number) in stored.items():
            expected = self._rows.get(item_id)
            if expected == (seq, number):
                continue
            match = [
                (w, n)
                for w, write in enumerate(in_flight)
                for n, c in enumerate(write.changes)
                if c == (item_id, number)
            ]
            if not match or (expected is not None and seq <= expected[0]):
                self.figures.phantom += 1
                self._fault(f"{item_id} is {number} at {seq}, acknowledged was {expected}")
            elif number is not None:
                bases[match[0][0]] = seq - match[0][1]
        for item_id, expected in self._rows.items():
            if item_id not in stored or stored[item_id][0] < expected[0]:
                self.figures.lost += 1
                self._fault(f"{item_id} is {stored.get(item_id)}, acknowledged was {expected}")
        for w, base in bases.items():
            changes = in_flight[w].changes
            if any(stored.get(item_id, (0, None))[0] < base + n for n, (item_id, _) in enumerate(changes)):
                self.figures.torn += 1
                self._fault(f"a part of {changes} is there")
        self.figures.in_flight_there += len(bases)
        self._rows = stored

    def _check_keys(self, journal: Journal, in_flight: list[Write]) -> None:
        for key, write in self._keys.items():
            written = journal.repeated(key, "request")
            if written is None or written.seq != write.seq:
                self.figures.lost += 1
                self._fault(f"{key} was acknowledged at {write.seq}, the journal says {written}")
        known = {row["key"] for row in journal._select("SELECT key FROM requests")}
        if never_sent := known - self._keys.keys() - {write.key for write in in_flight}:
            self.figures.phantom += len(never_sent)
            self._fault(f"{sorted(never_sent)} were never sent")
        for write in in_flight:
            if (
                write.key is None
                or write.key in self._keys
                or (written := journal.repeated(write.key, "request")) is None
            ):
                continue
            first = written.seq - len(write.changes) + 1
            if any(self._rows.get(i, (0, None))[0] < first + n for n, (i, _) in enumerate(write.changes)):
                self.figures.torn += 1
                self._fault(f"{write.key} is there, its write is not")
            write.seq = written.seq
            self._keys[write.key] = write

    def _fault(self, text: str) -> None:
        self.figures.faults.append(f"kill {self.figures.kills}: {text}")


def read_rows(journal: Journal) -> dict[str, tuple[int, int | None]]:
    """By item id: the sequence number, and the number of the content (None: deleted). Every byte is compared."""
    changes = journal.changes(journal._pruned)
    seqs = {item.item_id: seq for seq, item in journal.page(None, 10 * ITEMS, 0)}
    ids = list(seqs)
    items, memory = journal.contents(ids), journal.memory(ids, ENCODER)
    rows: dict[str, tuple[int, int | None]] = {}
    for vectors in changes.added:
        item = items[vectors.item_id]
        assert item is not None, "an added item has a content"
        number = int(item.title.removeprefix("Item "))
        wanted = live_item(item.item_id, number)
        same = item == wanted.content.item and np.array_equal(memory[item.item_id], wanted.memory)
        same = same and all(np.array_equal(vectors.vectors[kind], v) for kind, v in wanted.vectors.items())
        rows[item.item_id] = seqs[item.item_id], number if same else -1
    deleted = journal._select("SELECT item_id, seq FROM changes WHERE deleted = 1")
    return rows | {row["item_id"]: (row["seq"], None) for row in deleted}


def _read_until(pipe: int, deadline: float, pid: int) -> tuple[bytes, float]:
    """Kills a child at the deadline. Returns what it said, and for how many seconds it did."""
    parts, first = list[bytes](), None
    while (left := deadline - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            first = first or time.monotonic()
            if not (part := os.read(pipe, 65_536)):
                raise RuntimeError("the child ended by itself: its error is above")
            parts.append(part)
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    os.waitpid(pid, 0)
    while part := os.read(pipe, 65_536):
        parts.append(part)
    os.close(pipe)
    return b"".join(parts), killed - (first or killed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure; a temporary one by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as home:
        figures = Killer(Path(home) / "live", args.seed).run(args.kills)
    print(
        f"{date.today()}  {os.cpu_count()} cores; python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )
    print(f"python -m benchmarks.journal_kills {' '.join(sys.argv[1:])}")
    print(json.dumps(figures.summary(), indent=2))
    return bool(figures.faults)


if __name__ == "__main__":
    sys.exit(main())
