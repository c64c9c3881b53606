"""A small app behind all layers of the API, on a real uvicorn server, and raw requests to it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, Response, StreamingResponse

from comem_ray.config import ApiConfig
from serve.http.json_body import JsonRoute
from serve.http.keys import Keys
from serve.http.layers import add_layers

TYPE = {"Content-Type": "application/json"}


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    text: str
    number: float | None = None


def small_app(limits: ApiConfig, keys: Keys) -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    app.router.route_class = JsonRoute

    @app.post("/echo")
    async def echo(body: Body, request: Request) -> Response:
        return JSONResponse({"text": body.text, "caller": request.state.caller})

    @app.get("/echo")
    async def usage() -> Response:
        return JSONResponse({"text": "POST it"})

    @app.post("/slow")
    async def slow(body: Body) -> Response:
        await asyncio.sleep(float(body.text))
        return JSONResponse({})

    @app.get("/stream")
    async def stream() -> Response:
        return StreamingResponse(_ticks(), media_type="text/event-stream")

    @app.get("/page")
    async def page() -> Response:
        return Response("<p>", media_type="text/html", headers={"Content-Security-Policy": "default-src 'self'"})

    @app.get("/fault")
    async def fault() -> Response:
        raise RuntimeError(f"a secret of {'x' * 5_000}")

    for path in ("/healthz", "/readyz"):
        app.add_api_route(path, _ok)
    add_layers(app, limits, keys)
    return app


async def _ok() -> Response:
    return JSONResponse({"status": "ok"})


async def _ticks() -> AsyncIterator[str]:
    for n in range(100):
        yield f"data: {n}\n\n"
        await asyncio.sleep(0.05)


@dataclass
class Guarded:
    """The running app. `send` opens a connection, sends raw bytes and leaves it open."""

    port: int
    http: httpx.Client

    def echo(self, text: str = "hello", **headers: str) -> httpx.Response:
        return self.http.post("/echo", json={"text": text}, headers=headers)

    def post(self, body: bytes, path: str = "/echo") -> httpx.Response:
        return self.http.post(path, content=body, headers=TYPE)

    def send(self, data: bytes, timeout_s: float = 10) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)
        connection.sendall(data)
        return connection

    def raw(self, data: bytes, timeout_s: float = 10) -> bytes:
        """The whole reply to raw bytes, read until the server closes the connection."""
        with self.send(data, timeout_s) as connection:
            return b"".join(iter(lambda: connection.recv(65_536), b""))


def head(length: object = 1_000, path: str = "/echo", **headers: str) -> bytes:
    """The head of a POST with a body of that length, and further headers."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n{more}\r\n"
    ).encode()


@contextmanager
def guarded(keys: Keys | None = None, **limits: Any) -> Iterator[Guarded]:
    app = small_app(ApiConfig(**limits), keys or Keys({}))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = uvicorn.Config(app, lifespan="off", log_level="critical", proxy_headers=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
                yield Guarded(port, http)
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)


def parse(reply: bytes) -> httpx.Response:
    start, _, body = reply.partition(b"\r\n\r\n")
    lines = start.decode("latin-1").split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines[1:]]
    response = httpx.Response(int(lines[0].split()[1]), headers=headers, content=body)
    return response


def check(response: httpx.Response, status: int, type: str) -> str:
    """Asserts status and shape of an error, and the headers of every response; returns its message."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"type", "message", "field"}
    assert error["type"] == type, error
    assert "Traceback" not in error["message"]
    assert response.headers["x-content-type-options"] == "nosniff"
    if status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return str(error["message"])
