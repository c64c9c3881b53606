"""Which pages of other origins may call: none, unless listed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.guarded import Guarded, guarded

from comem_ray.config import ApiConfig
from serve.http.keys import load_keys

ALICE = {"Authorization": "Bearer 0123456789abcdef0123"}


@pytest.fixture(scope="module")
def with_keys() -> Iterator[Guarded]:
    keys = load_keys(ApiConfig(), {"COMEM_API_KEYS": "alice:0123456789abcdef0123"})
    with guarded(keys, cors_origins=["https://example.org"]) as app:
        yield app


@pytest.fixture(scope="module")
def without_keys() -> Iterator[Guarded]:
    with guarded() as app:
        yield app


def test_cors_is_off_by_default(without_keys: Guarded) -> None:
    headers = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    for response in (without_keys.http.options("/echo", headers=headers), without_keys.echo(**headers)):
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_preflight_of_a_listed_origin_needs_no_key(with_keys: Guarded) -> None:
    headers = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    response = with_keys.http.options("/echo", headers=headers)
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == "https://example.org"
    assert response.headers["access-control-allow-methods"] == "GET, POST, PUT, DELETE"
    for name in ("Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID"):
        assert name in response.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in response.headers
    answer = with_keys.echo(**ALICE, Origin="https://example.org")
    assert answer.headers["access-control-allow-origin"] == "https://example.org"
    assert answer.headers["vary"] == "Origin"
    refusal = with_keys.echo(Origin="https://example.org")
    assert (refusal.status_code, refusal.headers["access-control-allow-origin"]) == (401, "https://example.org")


@pytest.mark.parametrize("origin", ["https://example.org.evil.example", "http://example.org", "null", "https://x"])
def test_a_preflight_of_another_origin(with_keys: Guarded, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    response = with_keys.http.options("/echo", headers=headers)
    assert response.status_code == 401
    assert "access-control-allow-origin" not in response.headers
    assert "access-control-allow-origin" not in with_keys.echo(**ALICE, Origin=origin).headers
