"""Many unfinished bodies: the oldest end, and nobody else notices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.guarded import Guarded, check, guarded, head, parse

from serve.http.arrival import BODIES_HELD

MAX_BYTES = 100_000


@pytest.fixture(scope="module")
def app() -> Iterator[Guarded]:
    with guarded(max_body_bytes=MAX_BYTES, body_timeout_s=0.7, max_unfinished_bodies=8) as app:
        yield app


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
