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
    """`status` and `body` are those of every reply; `requests` holds (path, body) of all requests."""

    url: str = ""
    status: int = 200
    body: bytes = json.dumps(ANSWER).encode()
    requests: list[tuple[str, Any]] = field(default_factory=list)

    def fail(self, status: int, type: str, message: str, field: str | None = None) -> None:
        """From now on every reply is this error."""
        error = {"type": type, "message": message, "field": field}
        self.status, self.body = status, json.dumps({"error": error}).encode()


@contextmanager
def listening() -> Iterator[Endpoint]:
    """An endpoint on a port of its own, while the block runs."""
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def reply(self, body: Any) -> None:
            endpoint.requests.append((self.path, body))
            self.send_response(endpoint.status)
            self.end_headers()
            self.wfile.write(endpoint.body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        endpoint.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield endpoint
        server.shutdown()
