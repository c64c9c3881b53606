"""ASGI layer: one log line per request, and a 500 in our shape for what no handler caught.

The line holds method, path, status, caller and times: no query (it may hold words of a search), no body, no key.
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comem_ray.clock import Clock
from serve.http.errors import api_error
from serve.metrics import IngressMetrics, path_of

log = logging.getLogger("ray.serve")  # its records carry the request id

CLIENT_LEFT = 499  # status in the log of a request whose client went away before an answer began
PATH_CHARS = 200


class Guard:
    """Logs each request and turns an exception into an error of the API. Refuses WebSockets: the API has none."""

    def __init__(self, app: ASGIApp):
        self.app, self.metrics, self._open = app, IngressMetrics(), 0

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
        self._count(1)
        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if status:  # too late for a status of its own
                raise
            await api_error(error).response()(scope, receive, watched)
        finally:
            self._count(-1)
            self._note(scope, status or CLIENT_LEFT, state)
            timings = {**clock.timings(), **state.get("timings_ms", {})}
            text = " ".join(f"{stage}_ms={ms}" for stage, ms in timings.items())
            caller = state.get("caller", "-")
            log.info("%s %r status=%s caller=%s %s", method, path, status or CLIENT_LEFT, caller, text)

    def _count(self, change: int) -> None:
        self._open += change
        self.metrics.set_open_requests(self._open)

    def _note(self, scope: Scope, status: int, state: dict[str, Any]) -> None:
        """The metrics of a request that is over; those of answers are counted in serve.flow."""
        self.metrics.finish_request(path_of(scope), status)
        if error := state.get("error"):
            self.metrics.count_error(error)
            if status == 429:
                self.metrics.reject(error)
