"""ASGI layer: one log line per request, and a 500 in our shape for what no handler caught.

The line holds method, path, status, caller and times: no query (it may hold words of a search), no body, no key.
"""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comem_ray.clock import Clock
from serve.http.errors import api_error

log = logging.getLogger("ray.serve")  # its records carry the request id

CLIENT_LEFT = 499  # status in the log of a request whose client went away before an answer began
PATH_CHARS = 200


class Guard:
    """Logs each request and turns an exception into an error of the API. Refuses WebSockets: the API has none."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        clock, status = Clock(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        method, path = scope["method"], scope["path"][:PATH_CHARS]  # layers below may change them
        state = scope.setdefault("state", {})
        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if status:  # too late for a status of its own
                raise
            await api_error(error).response()(scope, receive, watched)
        finally:
            timings = {**clock.timings(), **state.get("timings_ms", {})}
            text = " ".join(f"{stage}_ms={ms}" for stage, ms in timings.items())
            caller = state.get("caller", "-")
            log.info("%s %r status=%s caller=%s %s", method, path, status or CLIENT_LEFT, caller, text)
