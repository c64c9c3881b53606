"""Who may call: keys, and names in the Host header where there are none."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from support.guarded import Guarded, check, guarded, head

from comem_ray.config import ApiConfig
from serve.http.access import client_address
from serve.http.keys import load_keys

KEYS = {"COMEM_API_KEYS": "alice:0123456789abcdef0123,fedcba9876543210fedcba"}
ALICE = {"Authorization": "Bearer 0123456789abcdef0123"}


@pytest.fixture(scope="module")
def with_keys() -> Iterator[Guarded]:
    with guarded(load_keys(ApiConfig(), KEYS)) as app:
        yield app


@pytest.fixture(scope="module")
def without_keys() -> Iterator[Guarded]:
    with guarded(allowed_hosts=["localhost", "127.0.0.1", "::1", "box"]) as app:
        yield app


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/page", "/echo", "/nothing", "/healthz/more"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_every_path_and_method_wants_a_key(with_keys: Guarded, method: str, path: str) -> None:
    response = with_keys.http.request(method, path)
    assert response.status_code == 401
    assert "Basic realm=" in response.headers["www-authenticate"]
    assert "Bearer" in response.headers["www-authenticate"]
    if method != "HEAD":
        check(response, 401, "missing_key")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/healthz/"])
def test_health_checks_want_none(with_keys: Guarded, path: str) -> None:
    assert with_keys.http.get(path).status_code == 200
    assert with_keys.http.head(path).status_code == 200
    check(with_keys.http.post(path), 401, "missing_key")


@pytest.mark.parametrize(
    ("headers", "caller"),
    [
        (ALICE, "key:alice"),
        ({"Authorization": "bearer  0123456789abcdef0123"}, "key:alice"),
        ({"Authorization": "Bearer fedcba9876543210fedcba"}, "key:(digest)"),
        (basic("anyone", "0123456789abcdef0123"), "key:alice"),
        (basic("", "0123456789abcdef0123"), "key:alice"),
    ],
)
def test_a_key_opens(with_keys: Guarded, headers: dict[str, str], caller: str) -> None:
    response = with_keys.echo(**headers)
    assert response.status_code == 200
    if caller == "key:alice":
        assert response.json()["caller"] == caller
    else:
        assert response.json()["caller"].startswith("key:")


@pytest.mark.parametrize(
    ("authorization", "type"),
    [
        ("Bearer 0123456789abcdef0124", "wrong_key"),
        ("Bearer 0123456789abcdef012", "wrong_key"),
        ("Bearer alice", "wrong_key"),
        ("Bearer alice:0123456789abcdef0123", "wrong_key"),
        (basic("0123456789abcdef0123", "alice")["Authorization"], "wrong_key"),
        ("Bearer", "missing_key"),
        ("0123456789abcdef0123", "missing_key"),
        ("Basic ???", "missing_key"),
        ("Basic YQ==", "missing_key"),
        ("Digest 0123456789abcdef0123", "missing_key"),
        ("Bearer " + "x" * 20_000, "wrong_key"),
    ],
)
def test_what_is_not_a_key(with_keys: Guarded, authorization: str, type: str) -> None:
    message = check(with_keys.echo(Authorization=authorization), 401, type)
    assert "alice" not in message
    assert "0123" not in message


def test_a_key_that_is_not_ascii(with_keys: Guarded) -> None:
    reply = with_keys.raw(head(0, Authorization="Bearer \u00fc\u20ac", Connection="close"))
    assert reply.startswith(b"HTTP/1.1 401")


def test_with_keys_the_host_does_not_count(with_keys: Guarded) -> None:
    assert with_keys.echo(**ALICE, Host="example.org").status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:80", "[::1]", "box", "box."])
def test_a_host_of_ours(without_keys: Guarded, host: str) -> None:
    response = without_keys.echo(Host=host)
    assert response.json() == {"text": "hello", "caller": "address:127.0.0.1"}


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]", "", "box@x"])
def test_another_host(without_keys: Guarded, host: str) -> None:
    message = check(without_keys.echo(Host=host), 421, "unknown_host")
    assert "api.allowed_hosts" in message
    assert without_keys.http.get("/healthz", headers={"Host": host}).status_code == 200


def test_no_host_and_two_hosts(without_keys: Guarded) -> None:
    assert without_keys.raw(b"GET /echo HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421")
    two = b"GET /echo HTTP/1.1\r\nHost: box\r\nHost: evil\r\nConnection: close\r\n\r\n"
    assert without_keys.raw(two).startswith(b"HTTP/1.1 4")


def test_any_host() -> None:
    with guarded(allowed_hosts=["*"]) as app:
        assert app.echo(Host="evil.example").status_code == 200


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("1.2.3.4", 5), "1.2.3.4"),
        (("::ffff:1.2.3.4", 5), "1.2.3.4"),
        (("2001:db8:1:2:3::4", 5), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::9", 5), "2001:db8:1:2::/64"),
        (None, "unknown"),
        (("testclient", 1), "testclient"),
    ],
)
def test_client_address(client: Any, address: str) -> None:
    assert client_address({"client": client}) == address
