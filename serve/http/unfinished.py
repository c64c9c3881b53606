"""The bodies that are arriving, and which of them ends where they are too many.

They are bounded three times: in number per client address, in number over all, and in bytes over all. One more ends the
oldest of its address, or of the address that has most. So a client that sends quickly is answered whatever slow senders
there are, at its own address too: it is never the oldest for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from serve.http.errors import ApiError, overloaded


@dataclass(eq=False)
class UnfinishedBody:
    """A body that is arriving: what is there of it, and, once it was ended, why (`refusal`)."""

    address: str
    timeout: asyncio.Timeout
    data: bytearray = field(default_factory=bytearray)
    refusal: ApiError | None = None


class UnfinishedBodies:
    """All of them, by address, oldest first. Used from one event loop."""

    def __init__(self, per_address: int, number: int, size: int):
        self.per_address, self.max_number, self.max_size = per_address, number, size
        self.number, self.size = 0, 0
        self.by_address: dict[str, dict[UnfinishedBody, None]] = {}

    @contextmanager
    def arriving(self, address: str, timeout: asyncio.Timeout) -> Iterator[UnfinishedBody]:
        """A body counts as unfinished within. `timeout` is the reader's own: it expires where the body is ended."""
        body = UnfinishedBody(address, timeout)
        self.by_address.setdefault(address, {})[body] = None
        self.number += 1
        if len(self.by_address[address]) > self.per_address:
            limit = f"more than {self.per_address} requests of this address had an unfinished body"
            self._end(address, _ended(limit))
        elif self.number > self.max_number:
            address = max(self.by_address, key=lambda a: len(self.by_address[a]))
            self._end(address, _ended(f"more than {self.max_number} requests had an unfinished body"))
        try:
            yield body
        finally:
            self._forget(body)

    def extend(self, body: UnfinishedBody, piece: bytes) -> None:
        """Adds what has arrived. May end a body, this one too."""
        body.data += piece
        if body.refusal is not None:
            return
        self.size += len(piece)
        if self.size > self.max_size:
            address = max(self.by_address, key=lambda a: sum(len(b.data) for b in self.by_address[a]))
            self._end(address, overloaded("the bodies that are arriving fill the memory that is kept for them"))

    def _end(self, address: str, refusal: ApiError) -> None:
        oldest = next(iter(self.by_address[address]))
        self._forget(oldest)
        oldest.refusal = refusal
        oldest.timeout.reschedule(0)  # expires at once

    def _forget(self, body: UnfinishedBody) -> None:
        bodies = self.by_address.get(body.address, {})
        if body in bodies:
            del bodies[body]
            self.number -= 1
            self.size -= len(body.data)
        if not bodies:
            self.by_address.pop(body.address, None)


def _ended(limit: str) -> ApiError:
    message = f"{limit}, and this one was the oldest: send the body at once, on fewer connections"
    return ApiError(408, "too_many_unfinished", message)
