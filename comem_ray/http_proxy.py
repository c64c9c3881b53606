"""What Ray Serve's HTTP proxy lacks: our words for its own errors, and limits on what a client may leave open.

`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=comem_ray.http_proxy:middlewares` (serve/ray.env) loads this into each proxy
process. It knows nothing of Ray and of the application: it sees ASGI messages and connections.

Errors. The proxy answers in plain text, or not at all: then uvicorn writes `500 Internal Server Error`. The application
answers in JSON only, so plain text from 400 upward is the proxy's, and becomes `{"error": {"type", "message",
"field"}}`. A response that has begun cannot be changed: when its replica dies, the connection breaks off.

Limits. uvicorn waits for ever for the headers of a request, of any length, on any number of connections. Its table of
protocols is where `GuardedProtocol` comes in: `middlewares()` runs before the proxy makes its server, so that no object
of uvicorn or Ray is patched. The protocol is httptools', which Ray's `uvicorn[standard]` always brings.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import uuid
from collections import Counter
from collections.abc import Iterable
from typing import Any, ClassVar

import uvicorn.config
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEADER_TIMEOUT_S = float(os.environ.get("COMEM_HEADER_TIMEOUT_S", "10"))  # from the connection, or the first byte
MAX_CONNECTIONS = int(os.environ.get("COMEM_MAX_CONNECTIONS", "1024"))  # of one client address
MAX_BODY_BYTES = int(os.environ.get("COMEM_MAX_BODY_BYTES", "64000000"))  # the proxy keeps a body until it is read
MAX_HEADER_BYTES = 65_536
RETRY_AFTER_S = 1

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# Headers by which a client could steer Ray: switch off the end of a request whose client left, its timeout, its route.
RAY_HEADERS = {
    b"x-request-disconnect-disabled",
    b"x-request-timeout-seconds",
    b"x-session-id",
    b"serve-multiplexed-model-id",
}

Error = tuple[int, str, str]  # status, type, message
RESTARTING: Error = (503, "restarting", "a part of the service is being restarted: send the same request again")
TOO_LARGE: Error = (413, "body_too_large", f"the body has more than {MAX_BODY_BYTES:,} bytes: send a smaller image")
SLOW: Error = (408, "request_timeout", "the headers of the request did not arrive in time: send it again")
INVALID: Error = (400, "invalid_http", "this is not a valid HTTP request: speak HTTP/1.1")
LONG: Error = (431, "headers_too_large", f"the headers have more than {MAX_HEADER_BYTES:,} bytes: send fewer")
CROWDED: Error = (429, "too_many_connections", "this address has too many connections: close some, then try again")
# By the status of the proxy's own text. 404: no application has the path, which with ours at / means it is not there.
PROXY_ERRORS: dict[int, Error] = {
    404: RESTARTING,
    408: (408, "request_timeout", "the request took longer than the service allows: ask for a shorter answer"),
    429: (429, "overloaded", "too many requests are waiting: send the same request again later"),
    503: RESTARTING,
}
INTERNAL: Error = (500, "internal", "something failed on our side: the log has it under this response's X-Request-ID")
UNKNOWN_PATH: Error = (404, "unknown_path", "there is no such path: see /docs for the paths")


def middlewares() -> list[Middleware]:
    """What Ray's proxy asks for: its layers, the last one outermost. Puts the guarded protocol in uvicorn's table."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{GuardedProtocol.__name__}"
    uvicorn.config.WS_PROTOCOLS["auto"] = None  # nothing here speaks WebSocket, and its connections are not guarded
    return [Middleware(ProxyErrors), Middleware(RequestHeaders)]


class RequestHeaders:
    """Gives every request one valid X-Request-ID, the client's where it is one, and drops headers that steer Ray."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            names = [(name.lower().replace(b"_", b"-"), name, value) for name, value in scope["headers"]]
            ids = [value for key, _, value in names if key == b"x-request-id"]
            valid = len(ids) == 1 and REQUEST_ID.fullmatch(ids[0])
            kept = [(name, value) for key, name, value in names if key not in RAY_HEADERS | {b"x-request-id"}]
            request_id = ids[0] if valid else str(uuid.uuid4()).encode()
            scope = {**scope, "headers": [*kept, (b"x-request-id", request_id)]}
        await self.app(scope, receive, send)


class ProxyErrors:
    """Our words for the proxy's errors: see the module. Within RequestHeaders."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/-/routes":  # Ray's list of applications
            await _send(send, UNKNOWN_PATH, scope["headers"][-1:])
        else:
            await _Request(scope, receive, send).run(self.app)


class _Request:
    """One request on its way through the proxy."""

    def __init__(self, scope: Scope, receive: Receive, send: Send):
        self.scope, self._receive, self._send = scope, receive, send
        self.started = self.replaced = False
        self.body_bytes = 0

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:
            if self.started:
                raise
        if not self.started:  # the replica died, or the proxy gave up
            error = TOO_LARGE if self.body_bytes > MAX_BODY_BYTES else RESTARTING
            await _send(self._send, error, self.scope["headers"][-1:])

    async def receive(self) -> Message:
        message = await self._receive()
        self.body_bytes += len(message.get("body", b""))
        # For the proxy the client is gone: it stops reading, and ends the request.
        return {"type": "http.disconnect"} if self.body_bytes > MAX_BODY_BYTES else message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = {name.lower(): value for name, value in message["headers"]}
            self.replaced = message["status"] >= 400 and headers.get(b"content-type", b"").startswith(b"text/plain")
            if self.replaced:
                kept = [(name, headers[name]) for name in (b"x-request-id", b"retry-after") if name in headers]
                await _send(self._send, PROXY_ERRORS.get(message["status"], INTERNAL), kept)
        if not self.replaced:
            await self._send(message)


def _body(error: Error) -> bytes:
    return json.dumps({"error": {"type": error[1], "message": error[2], "field": None}}).encode()


def _headers(error: Error, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    own = {b"content-type": b"application/json", b"content-length": str(len(_body(error))).encode()}
    if error[0] in (429, 503):
        own[b"retry-after"] = str(RETRY_AFTER_S).encode()
    if error[0] in (413, 431):
        own[b"connection"] = b"close"
    return list({**own, **dict(headers)}.items())


async def _send(send: Send, error: Error, headers: Iterable[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": error[0], "headers": _headers(error, headers)})
    await send({"type": "http.response.body", "body": _body(error)})


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with a time and a length for headers and a number of connections per client address.

    The time runs from the connection, or from the first byte of a further request on it. A body that goes on after its
    answer has the same time. A connection that waits between two requests is uvicorn's to close
    (`keep_alive_timeout_s`), and a body that is awaited is the application's (`api.body_timeout_s`).
    """

    connections_of: ClassVar[Counter[str]] = Counter()

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._in_headers, self._in_body = True, False  # both false: between two requests
        self._header_bytes = 0
        self._address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = str((transport.get_extra_info("peername") or [""])[0])
        self.connections_of[self._address] += 1
        if self.connections_of[self._address] > MAX_CONNECTIONS:
            self._refuse(CROWDED)
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self.connections_of[self._address] -= 1
        if not self.connections_of[self._address]:
            del self.connections_of[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_headers:
            self._header_bytes += len(data)
            self._start_timer()
            if self._header_bytes > MAX_HEADER_BYTES:
                self._refuse(LONG)
        elif self._in_body and self.cycle.response_complete:
            self._start_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_headers, self._in_body, self._header_bytes = False, True, 0
        self._stop_timer()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body = False
        self._stop_timer()

    def send_400_response(self, msg: str) -> None:
        self._refuse(INVALID)

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEADER_TIMEOUT_S, self._on_time)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_time(self) -> None:
        self._timer = None
        if self.pipeline or (self.cycle is not None and not self.cycle.response_complete):
            self._start_timer()  # an earlier request of this connection is being answered: nothing more was read
        elif self._in_headers and self._header_bytes:
            self._refuse(SLOW)
        else:
            self.transport.close()

    def _refuse(self, error: Error) -> None:
        """Answers without a request, and closes."""
        self._stop_timer()
        headers = {**dict(_headers(error, [])), b"connection": b"close"}
        lines = [STATUS_LINE[error[0]].rstrip(), *(name + b": " + value for name, value in headers.items())]
        self.transport.write(b"\r\n".join([*lines, b"", _body(error)]))
        self.transport.close()
