"""Bodies that are late, endless, false or many: they end with a sentence, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send
from support.guarded import Guarded, check, guarded, head

from comem_ray.config import ApiConfig
from serve.http.arrival import BODIES_HELD, BodyArrival

MAX_BYTES = 100_000
TIMEOUT_S = 0.7


@pytest.fixture(scope="module")
def app() -> Iterator[Guarded]:
    with guarded(max_body_bytes=MAX_BYTES, body_timeout_s=TIMEOUT_S, max_unfinished_bodies=8) as app:
        yield app


def parse(reply: bytes) -> httpx.Response:
    start, _, body = reply.partition(b"\r\n\r\n")
    lines = start.decode("latin-1").split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines[1:]]
    response = httpx.Response(int(lines[0].split()[1]), headers=headers, content=body)
    return response


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


def test_300_half_bodies_hurt_nobody_else(app: Guarded) -> None:
    connections = [app.send(head(50_000) + b'{"text": "') for _ in range(300)]
    try:
        for _ in range(20):
            start = time.monotonic()
            assert app.echo().json()["text"] == "hello"
            assert app.http.get("/healthz").status_code == 200
            assert time.monotonic() - start < 3  # nobody waits for their 0.7 s one after the other
        oldest = parse(b"".join(iter(lambda: connections[0].recv(65_536), b"")))
        assert "more than 8 requests of this address" in check(oldest, 408, "too_many_unfinished")
    finally:
        for connection in connections:
            connection.close()


def test_quick_clients_pass_beside_a_flood(app: Guarded) -> None:
    """Slow senders open connections all the time, from the same address; every quick request is answered."""
    stop = time.monotonic() + 3

    def flood() -> int:
        n = 0
        while time.monotonic() < stop:
            app.send(head(50_000) + b"{").close() if n % 2 else app.send(head(50_000) + b"{")
            n += 1
            time.sleep(0.005)
        return n

    with ThreadPoolExecutor(2) as threads:
        opened = threads.submit(flood)
        statuses = []
        while time.monotonic() < stop:
            statuses.append(app.echo("x" * 50_000).status_code)
    assert opened.result() > 100
    assert len(statuses) > 20
    assert set(statuses) == {200}


def test_a_client_that_leaves_is_forgotten() -> None:
    with guarded(body_timeout_s=60, max_unfinished_bodies=2) as app:
        for _ in range(20):
            app.send(head() + b"{").close()
        with app.send(head(20) + b'{"text":') as waiting:  # would be ended if the others still counted
            time.sleep(0.5)
            app.echo()
            waiting.sendall(b'"slow"     }')
            assert b'"slow"' in waiting.recv(65_536)


def test_a_declared_body_of_100_mb_is_refused_unread(app: Guarded) -> None:
    start = time.monotonic()
    response = parse(app.raw(head(104_857_600)))
    message = check(response, 413, "body_too_large")
    assert "104,857,600" in message
    assert "100,000" in message
    assert time.monotonic() - start < 2


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


def test_a_refusal_reaches_a_client_that_still_sends(app: Guarded) -> None:
    """httpx reads no reply before its body is sent; a reset would take the reply away."""
    for _ in range(5):
        check(httpx.post(f"http://127.0.0.1:{app.port}/echo", content=b"x" * 5_000_000), 413, "body_too_large")


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


def test_the_bytes_of_all_bodies_are_bounded() -> None:
    """17 bodies of almost the largest size, from one address, none of them whole: the memory of 16 is never passed."""
    with guarded(max_body_bytes=MAX_BYTES, body_timeout_s=3, max_unfinished_bodies=64) as app:
        size = MAX_BYTES - 10
        connections = [app.send(head(size) + b" " * (size - 1)) for _ in range(BODIES_HELD + 1)]
        assert app.echo().status_code == 200
        replies = [parse(c.recv(65_536)) for c in connections[:1]]
        check(replies[0], 429, "overloaded")
        assert b" 408 " in connections[-1].recv(65_536)
        for connection in connections:
            connection.close()


def test_the_bytes_of_open_requests_are_bounded() -> None:
    with guarded(max_body_bytes=MAX_BYTES, max_unfinished_bodies=64) as app:
        text = "2" + " " * (MAX_BYTES - 100)

        def ask(_: int) -> httpx.Response:
            return httpx.post(f"http://127.0.0.1:{app.port}/slow", json={"text": text}, timeout=20)

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
    scope: Scope = {"type": "http", "method": "POST", "client": ("1.2.3.4", 5), "headers": headers}
    messages: list[Message] = [{"type": "http.request", "body": b"123", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return messages.pop(0)

    asyncio.run(arrival(scope, receive, send))
    assert (arrival.unfinished.by_address, arrival.unfinished.number, arrival.unfinished.size) == ({}, 0, 0)
    assert arrival.held == 0
