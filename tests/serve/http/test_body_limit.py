"""Bodies that are too large or not JSON are refused before they are read."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from support.serving import LIMITS, Served, check_error


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", ""])
def test_another_content_type(served: Served, kind: str) -> None:
    response = served.http.post("/v1/answer", content=b"{}", headers={"Content-Type": kind})
    assert "application/json" in check_error(response, 415, "unsupported_media_type", None)


def test_a_declared_body_of_100_mb_is_refused_unread(served: Served) -> None:
    start = time.monotonic()
    host, port = served.http.base_url.host, served.http.base_url.port
    with socket.create_connection((host, port), timeout=10) as s:  # headers alone: nothing of the body is sent
        s.sendall(b"POST /v1/answer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        s.sendall(b"Content-Length: 104857600\r\n\r\n")
        reply = "".join(piece.decode() for piece in iter(lambda: s.recv(65_536), b""))  # until it closes
    assert reply.startswith("HTTP/1.1 413")
    assert "104,857,600" in reply
    assert "2,000,000" in reply
    assert time.monotonic() - start < 2


def test_a_chunked_body_is_counted(served: Served) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"question": "'
        for _ in range(300):
            yield b"x" * 10_000

    response = httpx.post(
        f"{served.url}/v1/answer", content=chunks(), headers={"Content-Type": "application/json"}, timeout=20
    )
    check_error(response, 413, "body_too_large", None)


def test_a_body_of_just_the_limit_passes_the_guard(served: Served) -> None:
    body = b'{"question": "' + b"x" * (LIMITS["max_body_bytes"] - 16) + b'"}'
    response = served.http.post("/v1/answer", content=body, headers={"Content-Type": "application/json"})
    check_error(response, 422, "text_too_long", "question")
