"""ASGI layer: HEAD is answered wherever GET is, and a path with a slash at its end is the path without."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Paths:
    """Hands HEAD on as GET, and sends none of the body."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope = {**scope, "path": scope["path"].rstrip("/") or "/"}
        if scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self.app({**scope, "method": "GET"}, receive, without_body)
