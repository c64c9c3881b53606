"""ASGI layer: a refusal before the whole body has arrived reaches its client.

A connection that is closed with unread bytes in it is reset, and the client may never read the refusal. So the rest of
the body is read and thrown away for LINGER_S at most, after the response and before its last, empty piece. Then the
connection is closed, for what may still come on it is not a request.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_S = 1.0
MAX_LINGERING = 64  # at once; further connections are closed at once


def has_body(scope: Scope) -> bool:
    """Whether the request declares a body."""
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


class Lingering:
    """Holds the end of a response back until the request's body is there, or LINGER_S have passed."""

    def __init__(self, app: ASGIApp):
        self.app, self.lingering = app, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and has_body(scope):
            body = _Body(receive)
            await self.app(scope, body.receive, lambda message: self._send(message, body, send))
        else:
            await self.app(scope, receive, send)

    async def _send(self, message: Message, body: _Body, send: Send) -> None:
        if body.arrived:
            await send(message)
        elif message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)
        elif message.get("more_body", False):
            await send(message)
        else:
            await send({**message, "more_body": True})
            await self._drain(body)
            await send({"type": "http.response.body", "body": b""})

    async def _drain(self, body: _Body) -> None:
        if self.lingering >= MAX_LINGERING:
            return
        self.lingering += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    while not body.arrived:
                        await body.receive()
        finally:
            self.lingering -= 1


class _Body:
    """The request's messages, and whether its last one was among them."""

    def __init__(self, receive: Receive):
        self._receive, self.arrived = receive, False

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):  # a disconnect ends the body too
            self.arrived = True
        return message
