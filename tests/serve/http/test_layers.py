"""What every response has, methods and paths, the log's line, and what a fault shows."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from support.guarded import Guarded, check, guarded

from comem_ray.config import ApiConfig
from serve.http.headers import SECURITY_HEADERS
from serve.http.keys import Keys, load_keys
from serve.http.layers import add_layers


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


@pytest.mark.parametrize("path", ["/echo", "/healthz", "/nothing", "/fault", "/stream"])
def test_security_headers_on_every_response(app: Guarded, path: str) -> None:
    with app.http.stream("GET", path) as response:
        for name, value in SECURITY_HEADERS.items():
            assert response.headers[name] == value


def test_a_route_keeps_its_own_header(app: Guarded) -> None:
    headers = app.http.get("/page").headers
    assert headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert headers["x-frame-options"] == "DENY"


def test_head_is_get_without_a_body(app: Guarded) -> None:
    get, head = app.http.get("/echo"), app.http.head("/echo")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert app.http.head("/slow").status_code == 405


def test_a_wrong_method_names_all_right_ones(app: Guarded) -> None:
    for method in ("DELETE", "PATCH", "PUT"):
        response = app.http.request(method, "/echo", json={})
        assert "GET, HEAD, OPTIONS, POST" in check(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"


def test_options(app: Guarded) -> None:
    response = app.http.options("/echo")
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    check(app.http.options("/nothing"), 404, "unknown_path")


def test_a_slash_at_the_end(app: Guarded) -> None:
    assert app.http.get("/healthz/").json() == {"status": "ok"}
    assert app.http.post("/echo/", json={"text": "a"}).json()["text"] == "a"
    check(app.http.get("//"), 404, "unknown_path")


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


def test_the_layers_hold_back_no_stream(app: Guarded) -> None:
    with app.http.stream("GET", "/stream") as response:
        lines = response.iter_lines()
        assert next(lines) == "data: 0"  # long before the last one, 5 s later


def test_their_order() -> None:
    small = FastAPI()
    add_layers(small, ApiConfig(), Keys({}))
    names = [layer.cls.__name__ for layer in small.user_middleware]  # type: ignore[attr-defined]
    assert names[:3] == ["SecurityHeaders", "Lingering", "Guard"]
    assert names.index("Hosts") < names.index("Access") < names.index("RequestRate") < names.index("BodyArrival")
    assert names[-1] == "OpenRequests"
