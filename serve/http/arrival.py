"""ASGI layer: a request's body is here, whole, before anything works on it. Slow and endless senders end here.

A body has `api.body_timeout_s` to arrive (408). What a body says of itself (length, type, encoding) is checked first.
The bytes of all bodies, of those that arrive and of those whose requests are under way, are bounded too.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comem_ray.config import ApiConfig
from serve.http.access import client_address
from serve.http.declared import refuse_declared, too_large
from serve.http.errors import ApiError, api_error, overloaded
from serve.http.lingering import has_body
from serve.http.paths import refuse_method
from serve.http.unfinished import UnfinishedBodies

BODIES_HELD = 16  # bodies of the largest size that may be in memory at once: while they arrive, and again as requests


class ClientLeft(Exception):
    """The client closed the connection while its body arrived."""


class BodyArrival:
    """Hands a request on when its body has arrived, in one piece."""

    def __init__(self, app: ASGIApp, limits: ApiConfig):
        self.app, self.max_bytes, self.timeout_s = app, limits.max_body_bytes, limits.body_timeout_s
        self.max_held, self.held = BODIES_HELD * limits.max_body_bytes, 0  # bytes of the requests under way
        self.unfinished = UnfinishedBodies(limits.max_unfinished_bodies, limits.max_open_requests, self.max_held)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            body = await self._checked(scope, receive)
        except HTTPException as refusal:
            await api_error(refusal).response()(scope, receive, send)
            return
        except ClientLeft:
            return
        self.held += (size := len(body))
        try:
            receive = _in_one_piece(body, receive)
            del body  # the layers below hold it as long as they need it
            await self.app(scope, receive, send)
        finally:
            self.held -= size

    async def _checked(self, scope: Scope, receive: Receive) -> bytes:
        refuse_method(scope)
        refuse_declared(scope["method"], Headers(scope=scope), self.max_bytes)
        if not has_body(scope):
            return b""
        body = await self._body(client_address(scope), receive)
        if self.held + len(body) > self.max_held:
            raise overloaded("the images of the requests under way fill the memory that is kept for them")
        return body

    async def _body(self, address: str, receive: Receive) -> bytes:
        """The whole body. Raises ApiError where it is too large, late, or ended for the sake of others."""
        try:
            async with asyncio.timeout(self.timeout_s) as timeout:
                with self.unfinished.arriving(address, timeout) as body:
                    more = True
                    while more:
                        message = await receive()
                        if message["type"] == "http.disconnect":
                            raise ClientLeft
                        self.unfinished.extend(body, message.get("body", b""))
                        if len(body.data) > self.max_bytes:
                            raise too_large(f"more than {self.max_bytes:,}", self.max_bytes)
                        more = message.get("more_body", False)
                    return bytes(body.data)
        except TimeoutError:
            raise body.refusal or self._late() from None

    def _late(self) -> ApiError:
        message = f"the body did not arrive within {self.timeout_s:g} seconds: send a smaller image, or the same again"
        return ApiError(408, "body_timeout", message)


def _in_one_piece(body: bytes, receive: Receive) -> Receive:
    """`receive` that hands over the body once, then what else comes: that the client left."""
    rest = [body]

    async def replay() -> Message:
        if rest:
            return {"type": "http.request", "body": rest.pop(), "more_body": False}
        return await receive()

    return replay
