"""ASGI layer: which pages of other origins may call the API from a browser (CORS). None, unless the configuration
lists their origins.

A browser asks first (a preflight: OPTIONS without a key), so this layer stands in front of the keys.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ANSWER_TO_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, X-Request-ID",
    "Access-Control-Max-Age": "600",
}
_EXPOSED = "X-Request-ID, Retry-After"


class Cors:
    """Answers preflights of `origins`, compared exactly, and lets their pages read responses."""

    def __init__(self, app: ASGIApp, origins: Iterable[str]):
        self.app, self.origins = app, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.origins:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        allowed = origin in self.origins

        async def shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.add_vary_header("Origin")
                if allowed:
                    answer["Access-Control-Allow-Origin"] = origin
                    answer["Access-Control-Expose-Headers"] = _EXPOSED
            await send(message)

        if allowed and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await Response(status_code=204, headers=_ANSWER_TO_PREFLIGHT)(scope, receive, shared)
        else:
            await self.app(scope, receive, shared)
