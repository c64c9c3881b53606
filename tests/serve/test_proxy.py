"""comem_ray.http_proxy inside Ray's real proxy: a replica that dies, idle connections, Ray's headers."""

from __future__ import annotations

import socket
import time

import httpx
import pytest
from support.small_app import Small


def test_a_replica_that_dies_under_a_request_is_a_503_in_our_words(small: Small) -> None:
    before = small.http.get("/pid").json()
    start = time.monotonic()
    response = small.http.get("/die", headers={"X-Request-ID": "died-1"})
    print(f"told after {time.monotonic() - start:.1f} s")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.headers["x-request-id"] == "died-1"
    assert response.json()["error"]["type"] == "restarting"
    small.wait()
    assert small.http.get("/pid").json() != before


def test_a_stream_whose_replica_dies_breaks_off(small: Small) -> None:
    received = []
    with small.http.stream("GET", "/stream") as response, pytest.raises(httpx.RemoteProtocolError):
        received.extend(response.iter_raw())
    assert received == [b"half"]
    small.wait()


def test_an_idle_connection_is_closed(small: Small) -> None:
    with socket.create_connection(("127.0.0.1", small.http.base_url.port or 0), timeout=20) as s:
        start = time.monotonic()
        assert s.recv(100) == b""
    assert 1 < time.monotonic() - start < 10  # COMEM_HEADER_TIMEOUT_S is 2 here


@pytest.mark.parametrize("name", ["X-Request-Timeout-Seconds", "X-Session-ID", "serve_multiplexed_model_id"])
def test_no_header_of_a_client_steers_ray(small: Small, name: str) -> None:
    assert small.http.get("/pid", headers={name: b"0.0001\xff"}).status_code == 200


def test_replicas_do_not_step_back_behind_other_work(small: Small) -> None:
    assert small.http.get("/nice").json() == 0
