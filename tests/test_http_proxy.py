"""The proxy's layers and its guarded protocol in a real uvicorn server, over raw sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from comem_ray import http_proxy
from comem_ray.http_proxy import GuardedProtocol, middlewares

TIMEOUT_S = 0.4  # for headers, in these tests


async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for Ray's proxy: by path, what it sends for its own errors, and for what an application answers."""
    headers = dict(scope["headers"])
    path = scope["path"].strip("/")
    if path.isdecimal():  # Ray's own reply of this status
        own = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-request-id", headers[b"x-request-id"])]
        extra = [(b"retry-after", b"7")] if path == "429" else []
        await send({"type": "http.response.start", "status": int(path), "headers": own + extra})
        await send({"type": "http.response.body", "body": b"Actor ray::ServeReplica died, see /tmp/ray"})
    elif path == "died":
        return
    elif path == "raised":
        raise RuntimeError("a secret")
    elif path == "ours":
        await send({"type": "http.response.start", "status": 500, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'{"error": "ours"}'})
    elif path == "broken":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
    elif path == "early":  # before the body is there
        await _reply(send, b"early")
    elif path == "slow":
        await asyncio.sleep(3 * TIMEOUT_S)
        await _reply(send, b"slow")
    else:
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            pass
        if message["type"] == "http.request":
            await _reply(send, json.dumps([(n.decode(), v.decode()) for n, v in headers.items()]).encode())


async def _reply(send: Send, body: bytes) -> None:
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving() -> Iterator[int]:
    """The port of a server as Ray's proxy makes it (ray/serve/_private/http_util.py)."""
    app: Any = proxy
    for middleware in middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    config = uvicorn.Config(lambda: app, factory=True, port=0, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "")  # and so back to what they were
    monkeypatch.setitem(uvicorn.config.WS_PROTOCOLS, "auto", None)
    monkeypatch.setattr(http_proxy, "HEADER_TIMEOUT_S", TIMEOUT_S)
    monkeypatch.setattr(http_proxy, "MAX_CONNECTIONS", 5)
    monkeypatch.setattr(http_proxy, "MAX_BODY_BYTES", 300_000)
    with serving() as port:
        yield port
    assert not GuardedProtocol.connections_of


@pytest.fixture
def http(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


@contextmanager
def connection(port: int, data: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
        s.sendall(data)
        yield s


def read_to_the_end(s: socket.socket) -> tuple[bytes, float]:
    """What arrives before the server closes, and after how many seconds it does."""
    start, data = time.monotonic(), b""
    while piece := s.recv(65_536):
        data += piece
    return data, time.monotonic() - start


def error_of(response: httpx.Response, status: int) -> str:
    """Asserts our shape and that nothing of Ray is in it; returns the type of the error."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    assert "ray" not in response.text.lower()
    assert "secret" not in response.text
    assert response.json()["error"].keys() == {"type", "message", "field"}
    return str(response.json()["error"]["type"])


@pytest.mark.parametrize(
    ("path", "status", "type", "retry_after"),
    [
        ("died", 503, "restarting", "1"),
        ("raised", 503, "restarting", "1"),
        ("503", 503, "restarting", "1"),
        ("404", 503, "restarting", "1"),
        ("429", 429, "overloaded", "7"),
        ("408", 408, "request_timeout", None),
        ("500", 500, "internal", None),
        ("-/routes", 404, "unknown_path", None),
    ],
)
def test_the_proxys_errors_are_in_our_words(
    http: httpx.Client, path: str, status: int, type: str, retry_after: str | None
) -> None:
    response = http.get(f"/{path}", headers={"X-Request-ID": "mine.1"})
    assert error_of(response, status) == type
    assert response.headers.get("retry-after") == retry_after
    assert response.headers.get_list("x-request-id") == ["mine.1"]
    assert http.get("/ours").status_code == 500  # the connection goes on


def test_an_error_of_the_application_is_left_alone(http: httpx.Client) -> None:
    response = http.get("/ours")
    assert response.status_code == 500
    assert response.json() == {"error": "ours"}
    assert "retry-after" not in response.headers


def test_a_response_that_breaks_stays_broken(http: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        http.get("/broken")


@pytest.mark.parametrize("given", ["find-me.1_A", "a" * 64])
def test_a_valid_request_id_is_kept(http: httpx.Client, given: str) -> None:
    assert dict(http.get("/headers", headers={"X-Request-ID": given}).json())["x-request-id"] == given


@pytest.mark.parametrize("given", ["a" * 65, "", "a b", "<script>", b"\xff"])
def test_another_request_id_is_replaced(http: httpx.Client, given: str | bytes) -> None:
    request_id = dict(http.get("/headers", headers={"X-Request-ID": given}).json())["x-request-id"]
    assert len(request_id) == 36


def test_of_two_request_ids_neither_is_taken(http: httpx.Client) -> None:
    names = [("X-Request-ID", "one"), ("x_request_id", "two")]
    assert len(dict(http.get("/headers", headers=names).json())["x-request-id"]) == 36


def test_no_header_steers_ray(http: httpx.Client) -> None:
    steering = {
        "X-Request-Disconnect-Disabled": "?1",
        "X-Request-Timeout-Seconds": "0.001",
        "serve_multiplexed_model_id": "m",
        "X-Session-Id": "s",
    }
    received = dict(http.get("/headers", headers={**steering, "X-Other": "kept"}).json())
    assert received["x-other"] == "kept"
    assert not {name.replace("_", "-").lower() for name in steering} & set(received)


def test_a_connection_without_a_request_is_closed(port: int) -> None:
    with connection(port) as s:
        data, seconds = read_to_the_end(s)
    assert data == b""
    assert TIMEOUT_S / 2 < seconds < TIMEOUT_S + 1


def test_slow_headers_are_ended_however_they_trickle(port: int) -> None:
    with connection(port, b"GET / HTTP/1.1\r\nHost: a\r\n") as s:
        end = time.monotonic() + 0.8 * TIMEOUT_S
        while time.monotonic() < end:
            s.sendall(b"X")
            time.sleep(TIMEOUT_S / 10)
        data, _ = read_to_the_end(s)
    assert data.startswith(b"HTTP/1.1 408 ")
    assert json.loads(data.partition(b"\r\n\r\n")[2])["error"]["type"] == "request_timeout"


def test_slow_headers_of_a_second_request_are_ended_too(port: int) -> None:
    with connection(port, b"GET /headers HTTP/1.1\r\nHost: a\r\n\r\n") as s:
        assert s.recv(65_536).startswith(b"HTTP/1.1 200")
        time.sleep(2 * TIMEOUT_S)  # between two requests this guard has nothing to say
        s.sendall(b"GET / HT")
        data, seconds = read_to_the_end(s)
    assert data.startswith(b"HTTP/1.1 408 ")
    assert seconds < TIMEOUT_S + 1


def test_neither_a_slow_answer_nor_an_awaited_body_is_ended(port: int) -> None:
    with connection(port, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n") as s:
        assert s.recv(65_536).endswith(b"slow")
        s.sendall(b"POST /headers HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{")
        time.sleep(2 * TIMEOUT_S)
        s.sendall(b"}")
        assert s.recv(65_536).startswith(b"HTTP/1.1 200")


def test_a_body_that_goes_on_after_its_answer_is_ended(port: int) -> None:
    with connection(port, b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n") as s:
        assert s.recv(65_536).endswith(b"early")
        s.sendall(b"x" * 100_000)
        data, seconds = read_to_the_end(s)
    assert data == b""
    assert seconds < TIMEOUT_S + 1


def test_endless_headers_are_refused(port: int) -> None:
    with connection(port, b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000) as s:
        data, _ = read_to_the_end(s)
    assert data.startswith(b"HTTP/1.1 431 ")


def test_what_is_not_http_is_refused_in_our_shape(port: int) -> None:
    with connection(port, b"\x16\x03\x01 hello\r\n\r\n") as s:
        data, _ = read_to_the_end(s)
    assert data.startswith(b"HTTP/1.1 400 ")
    assert json.loads(data.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_http"


def test_a_body_beyond_the_proxys_limit_is_refused(http: httpx.Client) -> None:
    assert error_of(http.post("/headers", content=b"x" * 400_000), 413) == "body_too_large"
    assert http.post("/headers", content=b"x" * 200_000).status_code == 200


def test_one_address_has_a_number_of_connections(port: int) -> None:
    idle = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(5)]
    with connection(port) as s:
        data, seconds = read_to_the_end(s)
    assert data.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 1" in data
    assert seconds < TIMEOUT_S
    for s in idle:
        s.close()
    with connection(port, b"GET /headers HTTP/1.1\r\nHost: a\r\n\r\n") as s:
        assert s.recv(65_536).startswith(b"HTTP/1.1 200")


def test_a_websocket_is_an_ordinary_request_here(http: httpx.Client) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"}
    assert http.get("/ours", headers=upgrade).status_code == 500
