"""ASGI layers: how many requests a caller may make per minute, and how many may be under way.

A caller is a key, or without keys an address. All counts are of this replica alone. Callers that are idle are
forgotten: nothing grows with the number of addresses that ever called.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from comem_ray.config import ApiConfig
from serve.http.access import is_health_check
from serve.http.errors import ApiError, retry_after

MINUTE_S = 60.0
MAX_CALLERS = 10_000  # whose tokens are counted; beyond that, those that were idle longest begin anew
MAX_RETRY_AFTER_S = 60.0


class RequestRate:
    """429 for more than `per_minute` requests of one caller: a bucket of that many tokens, refilled evenly."""

    def __init__(self, app: ASGIApp, per_minute: int | None, clock: Callable[[], float] = time.monotonic):
        self.app, self.per_minute, self._now = app, per_minute, clock
        self.full_at: OrderedDict[str, float] = OrderedDict()  # when each caller's bucket is full again, by last call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.per_minute is not None and not is_health_check(scope):
            wait_s = self._take(scope["state"]["caller"], MINUTE_S / self.per_minute)
            if wait_s > 0:
                message = f"more than {self.per_minute:,} requests per minute: send the next one later (Retry-After)"
                refusal = ApiError(429, "rate_limited", message, None, retry_after(wait_s))
                await refusal.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _take(self, caller: str, token_s: float) -> float:
        """Takes a token, which comes back after `token_s`; the seconds until there is one, where there is none."""
        now = self._now()
        while self.full_at and (len(self.full_at) > MAX_CALLERS or next(iter(self.full_at.values())) <= now):
            self.full_at.popitem(last=False)
        full_at = max(now, self.full_at.get(caller, now)) + token_s
        if full_at - now > MINUTE_S + 1e-9:
            return full_at - now - MINUTE_S
        self.full_at[caller] = full_at
        self.full_at.move_to_end(caller)
        return 0.0


class OpenRequests:
    """429 for more requests under way than `max_open_requests`, or of one caller than `max_open_per_key`.

    A stream is under way until it ends, or its client leaves.
    """

    def __init__(self, app: ASGIApp, limits: ApiConfig):
        self.app, self.max_open, self.max_per_caller = app, limits.max_open_requests, limits.max_open_per_key
        self.open: Counter[str] = Counter()
        self.mean_s = 1.0  # time that a request takes, the latest ones counting most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_health_check(scope):
            await self.app(scope, receive, send)
            return
        caller = scope["state"]["caller"]
        if refusal := self._refusal(caller):
            await refusal.response()(scope, receive, send)
            return
        with self._counted(caller):
            await self.app(scope, receive, send)

    def _refusal(self, caller: str) -> ApiError | None:
        headers = retry_after(min(self.mean_s, MAX_RETRY_AFTER_S))
        if self.open[caller] >= self.max_per_caller:
            message = f"{self.max_per_caller:,} requests of yours are under way: wait until one of them is answered"
            return ApiError(429, "too_many_open", message, None, headers)
        if self.open.total() >= self.max_open:
            message = f"{self.max_open:,} requests are under way: send the same request again in a few seconds"
            return ApiError(429, "too_many_requests", message, None, headers)
        return None

    @contextmanager
    def _counted(self, caller: str) -> Iterator[None]:
        start = time.monotonic()
        self.open[caller] += 1
        try:
            yield
        finally:
            self.open[caller] -= 1
            if not self.open[caller]:
                del self.open[caller]
            self.mean_s += 0.1 * (time.monotonic() - start - self.mean_s)
