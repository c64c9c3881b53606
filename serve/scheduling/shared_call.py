"""One call for all who wait: each caller gets the result of a call that began after the caller came."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class SharedCall:
    """Shares calls of `function` between callers, one at a time. Who comes during a call shares the next one."""

    def __init__(self, function: Callable[[], Awaitable[None]]):
        self._function = function
        self._current: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None

    async def __call__(self) -> None:
        """Raises what the call raises."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._run(self._current))
        await asyncio.shield(self._next)  # one caller who goes away does not end the others' call

    async def _run(self, before: asyncio.Future[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait([before])
        self._current, self._next = self._next, None
        await self._function()
