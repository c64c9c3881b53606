"""A small real chat-completions server: marks the text with the language, and can be told to fail."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Endpoint:
    """Where the server is, the bodies it got, and the answers (status, headers, body) it gives before it works."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    failures: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)


def translation(body: dict[str, Any]) -> str:
    """The "translation": the language's name and the text."""
    system, user = (turn["content"] for turn in body["messages"])
    return f"<{system.split(' into ')[1].split('.')[0]}> {user}"


@contextmanager
def translating() -> Iterator[Endpoint]:
    """A server on a free local port."""
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            endpoint.requests.append(body)
            endpoint.keys.append(self.headers.get("Authorization"))
            content = {"choices": [{"message": {"role": "assistant", "content": translation(body)}}]}
            known = self.path == "/v1/chat/completions"
            status, headers, data = (200 if known else 404), {}, json.dumps(content).encode()
            if endpoint.failures:
                status, headers, data = endpoint.failures.pop(0)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
