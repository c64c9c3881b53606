"""A refusal reaches a client that still sends, and its connection is closed soon."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest
from support.guarded import Guarded, check, guarded, head, parse

MAX_BYTES = 100_000


@pytest.fixture(scope="module")
def app() -> Iterator[Guarded]:
    with guarded(max_body_bytes=MAX_BYTES, body_timeout_s=0.7, max_unfinished_bodies=8) as app:
        yield app


def test_a_declared_body_of_100_mb_is_refused_unread(app: Guarded) -> None:
    start = time.monotonic()
    response = parse(app.raw(head(104_857_600)))
    message = check(response, 413, "body_too_large")
    assert "104,857,600" in message
    assert "100,000" in message
    assert time.monotonic() - start < 2


def test_a_refusal_reaches_a_client_that_still_sends(app: Guarded) -> None:
    """httpx reads no reply before its body is sent; a reset would take the reply away."""
    for _ in range(5):
        check(httpx.post(f"http://127.0.0.1:{app.port}/echo", content=b"x" * 5_000_000), 413, "body_too_large")
