"""A bounded queue that is fair between callers: each caller has a line of its own, and the lines take turns.

When it is full, a caller with a long line gives up its last place to one with a shorter line. So one caller who sends
a thousand questions delays the others by one question each, and cannot keep them out. Knows nothing of questions.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class FairQueue(Generic[Entry]):
    """Holds `max_entries` entries at most. Not for several threads at once."""

    def __init__(self, max_entries: int):
        self._max = max_entries
        self._lines: OrderedDict[str, deque[Entry]] = OrderedDict()  # the next caller first

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def put(self, caller: str, entry: Entry) -> Entry | None:
        """Adds an entry at the end of the caller's line. Returns the one that had to leave: none, another, or this."""
        displaced = None
        if len(self) >= self._max:
            longest = max(self._lines, key=lambda c: len(self._lines[c]), default=caller)
            if len(self._lines.get(longest, ())) <= len(self._lines.get(caller, ())) + 1:
                return entry
            displaced = self._lines[longest].pop()
        self._lines.setdefault(caller, deque()).append(entry)
        return displaced

    def peek(self) -> Entry | None:
        """The entry whose turn it is."""
        return next((line[0] for line in self._lines.values()), None)

    def take(self) -> Entry:
        """Takes the entry whose turn it is; its caller goes to the end of the lines. Raises IndexError if none is."""
        if not self._lines:
            raise IndexError("the queue is empty")
        caller, line = self._lines.popitem(last=False)
        entry = line.popleft()
        if line:
            self._lines[caller] = line
        return entry

    def take_where(self, wanted: Callable[[Entry], bool]) -> Iterator[Entry]:
        """Takes all entries that are `wanted`, out of turn."""
        for caller, line in list(self._lines.items()):
            for entry in [entry for entry in line if wanted(entry)]:
                line.remove(entry)
                yield entry
            if not line:
                del self._lines[caller]
