"""The line of each request in the log, and what a fault shows."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from support.guarded import Guarded, check, guarded

from comem_ray.config import ApiConfig
from serve.http.keys import load_keys


@pytest.fixture(scope="module")
def app() -> Iterator[Guarded]:
    with guarded() as app:
        yield app


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("ray.serve")
    logger.addHandler(caplog.handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield caplog
    logger.setLevel(level)
    logger.removeHandler(caplog.handler)


def test_a_fault_shows_nothing_and_its_log_is_cut(app: Guarded, log: pytest.LogCaptureFixture) -> None:
    message = check(app.http.get("/fault"), 500, "internal")
    assert "secret" not in message
    assert "RuntimeError: a secret of xxx" in log.text
    assert "x" * 500 not in log.text


def test_the_line_of_a_request_holds_no_query_no_body_and_no_key(log: pytest.LogCaptureFixture) -> None:
    keys = load_keys(ApiConfig(), {"COMEM_API_KEYS": "alice:0123456789abcdef"})
    with guarded(keys) as app:
        headers = {"Authorization": "Bearer 0123456789abcdef"}
        app.http.post("/echo?search=hidden", json={"text": "private"}, headers=headers)
        app.http.get("/" + "y" * 5_000 + "%0Aforged", headers=headers)
    assert "POST '/echo' status=200 caller=key:alice total_ms=" in log.text
    for text in ("hidden", "private", "0123456789", "y" * 201, "\nforged"):
        assert text not in log.text


def test_no_websocket(app: Guarded) -> None:
    upgrade = (
        b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with app.send(upgrade) as connection:
        assert connection.recv(1_000).startswith(b"HTTP/1.1 403")
