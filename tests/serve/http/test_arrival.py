"""Bodies that are late, endless, false or many: they end with a sentence, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send
from support.guarded import Guarded, check, guarded, head, parse

from comem_ray.config import ApiConfig
from serve.http.arrival import BODIES_HELD, BodyArrival

MAX_BYTES = 100_000
TIMEOUT_S = 0.7


@pytest.fixture(scope="module")
def app() -> Iterator[Guarded]:
    with guarded(max_body_bytes=MAX_BYTES, body_timeout_s=TIMEOUT_S, max_unfinished_bodies=8) as app:
        yield app


def test_half_a_body_ends_in_time(app: Guarded) -> None:
    start = time.monotonic()
    response = parse(app.raw(head() + b'{"text": "'))
    assert "0.7 seconds" in check(response, 408, "body_timeout")
    assert response.headers["connection"] == "close"
    assert TIMEOUT_S <= time.monotonic() - start < TIMEOUT_S + 2


def test_a_drip_ends_in_time(app: Guarded) -> None:
    start = time.monotonic()
    with app.send(head()) as connection:
        reply = b""
        connection.settimeout(0.05)
        while not reply and time.monotonic() - start < 5:
            connection.sendall(b" ")
            try:
                reply = connection.recv(65_536)
            except TimeoutError:
                continue
    assert reply.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - start < TIMEOUT_S + 1


def test_an_endless_chunked_body_ends_at_the_limit(app: Guarded) -> None:
    def chunks() -> Iterator[bytes]:
        while True:
            yield b"x" * 10_000

    start = time.monotonic()
    try:
        response = app.http.post("/echo", content=chunks(), headers={"Content-Type": "application/json"})
    except (httpx.WriteError, httpx.ReadError):
        pass  # closed while it sent on
    else:
        check(response, 413, "body_too_large")
    assert time.monotonic() - start < 5
    assert app.echo().status_code == 200


def test_a_chunked_body_that_stalls(app: Guarded) -> None:
    start = head().replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked")
    check(parse(app.raw(start + b"2\r\n{}\r\n")), 408, "body_timeout")


def test_a_chunked_body_that_ends(app: Guarded) -> None:
    response = app.http.post(
        "/echo", content=iter([b'{"te', b'xt": "a"}']), headers={"Content-Type": "application/json"}
    )
    assert response.json()["text"] == "a"


def test_a_get_with_an_endless_body_ends(app: Guarded) -> None:
    reply = app.raw(b"GET /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\nabc")
    check(parse(reply), 408, "body_timeout")


def test_expect_100_continue(app: Guarded) -> None:
    body = json.dumps({"text": "waited"}).encode()
    with app.send(head(len(body), Expect="100-continue", Connection="close")) as connection:
        assert connection.recv(1_000).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert b"waited" in b"".join(iter(lambda: connection.recv(65_536), b""))


def test_a_body_of_just_the_limit_passes(app: Guarded) -> None:
    text = "x" * (MAX_BYTES - len('{"text": ""}'))
    assert app.post(json.dumps({"text": text}).encode()).json()["text"] == text
    check(app.post(json.dumps({"text": f"{text}x"}).encode()), 413, "body_too_large")


def test_the_bytes_of_open_requests_are_bounded() -> None:
    with guarded(max_body_bytes=MAX_BYTES, max_unfinished_bodies=64) as app:
        text = "3" + " " * (MAX_BYTES - 100)

        def ask(_: int) -> httpx.Response:
            return app.http.post("/slow", json={"text": text})

        with ThreadPoolExecutor(20) as threads:
            responses = list(threads.map(ask, range(20)))
        refused = [r for r in responses if r.status_code != 200]
        assert len(refused) == 20 - BODIES_HELD
        for response in refused:
            check(response, 429, "overloaded")
        assert app.echo("x" * 90_000).status_code == 200


def test_nothing_is_left_of_a_client_that_left() -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("called without a body")

    async def send(message: Message) -> None:
        raise AssertionError(f"nobody is there for {message}")

    arrival = BodyArrival(inner, ApiConfig())
    headers = [(b"content-type", b"application/json"), (b"content-length", b"9")]
    request = {"type": "http", "method": "POST", "path": "/", "client": ("1.2.3.4", 5), "headers": headers}
    scope: Scope = {**request, "app": FastAPI()}
    messages: list[Message] = [{"type": "http.request", "body": b"123", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return messages.pop(0)

    asyncio.run(arrival(scope, receive, send))
    assert (arrival.unfinished.by_address, arrival.unfinished.number, arrival.unfinished.size) == ({}, 0, 0)
    assert arrival.held == 0
