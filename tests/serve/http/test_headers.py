"""Security headers on every response."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.guarded import Guarded, guarded

from serve.http.headers import SECURITY_HEADERS


@pytest.fixture(scope="module")
def app() -> Iterator[Guarded]:
    with guarded() as app:
        yield app


@pytest.mark.parametrize("path", ["/echo", "/healthz", "/nothing", "/fault", "/stream"])
def test_security_headers_on_every_response(app: Guarded, path: str) -> None:
    with app.http.stream("GET", path) as response:
        for name, value in SECURITY_HEADERS.items():
            assert response.headers[name] == value


def test_a_route_keeps_its_own_header(app: Guarded) -> None:
    headers = app.http.get("/page").headers
    assert headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert headers["x-frame-options"] == "DENY"
