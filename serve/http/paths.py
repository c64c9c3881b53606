"""Paths and their methods. HEAD is answered wherever GET is, a path with a slash at its end is the path without, and a
wrong method is told all right ones: Starlette names those of one route, and a path may have several routes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Paths:
    """ASGI layer: hands HEAD on as GET, and sends none of the body. Takes the slash from the end of a path."""

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


def allowed_methods(scope: Scope) -> str:
    """The methods of a path, as the header Allow lists them."""
    methods = set(_methods(scope["app"].router.routes, scope))
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods | {"OPTIONS"}))


def refuse_method(scope: Scope) -> None:
    """Raises HTTPException (405) where the path is known and does not have the method."""
    methods = set(_methods(scope["app"].router.routes, scope))
    if methods and scope["method"] not in methods | {"OPTIONS"}:
        raise HTTPException(405, headers={"Allow": allowed_methods(scope)})


def _methods(routes: Any, scope: Scope) -> Iterator[str]:
    for route in routes:
        if route.matches(scope)[0] != Match.NONE:
            yield from getattr(route, "methods", None) or ()
