"""An HTTP server that stands for the service: it keeps what it is asked, and answers as a test tells it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = {
    "answer": "Sofia",
    "mode": "memory",
    "sources": [{"item_id": "a" * 24, "title": "Bulgaria", "text": "...", "score": 0.9, "image_url": "/image"}],
    "timings_ms": {"retrieve": 2.0, "answer": 3.0, "total": 6.0},
    "usage": {"prompt_tokens": 10, "memory_vectors": 8, "completion_tokens": 2},
}


@dataclass
class Endpoint:
    """`status`, `body` and `headers` are those of every reply, after `full` replies that there is no room.

    `requests` holds (path, body) of all requests, `methods` and `received` their methods and headers.
    """

    url: str = ""
    status: int = 200
    body: bytes = json.dumps(ANSWER).encode()
    headers: dict[str, str] = field(default_factory=dict)
    full: int = 0
    retry_after: str | None = "0"  # of those replies
    requests: list[tuple[str, Any]] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    received: list[Any] = field(default_factory=list)

    def answer(self, body: Any) -> None:
        """From now on every reply is this object."""
        self.status, self.body = 200, json.dumps(body).encode()

    def fail(self, status: int, type: str, message: str, field: str | None = None) -> None:
        """From now on every reply is this error."""
        error = {"type": type, "message": message, "field": field}
        self.status, self.body = status, json.dumps({"error": error}).encode()


def no_room(endpoint: Endpoint) -> tuple[int, bytes, dict[str, str]]:
    error = {"type": "overloaded", "message": "no room", "field": None}
    headers = {} if endpoint.retry_after is None else {"Retry-After": endpoint.retry_after}
    return 429, json.dumps({"error": error}).encode(), headers


@contextmanager
def listening() -> Iterator[Endpoint]:
    """An endpoint on a port of its own, while the block runs."""
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers["Content-Length"] or 0)
            endpoint.requests.append((self.path, json.loads(self.rfile.read(length)) if length else None))
            endpoint.methods.append(self.command)
            endpoint.received.append(self.headers)
            endpoint.full -= 1
            self.send(
                *(no_room(endpoint) if endpoint.full >= 0 else (endpoint.status, endpoint.body, endpoint.headers))
            )

        do_POST = do_PUT = do_DELETE = do_GET

        def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        endpoint.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield endpoint
        server.shutdown()
