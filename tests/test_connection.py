"""The address of a service: what is one, and what is refused in one sentence."""

from __future__ import annotations

import pytest

from comem_ray.client import Client
from comem_ray.connection import service_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("127.0.0.1:8000/", "http://127.0.0.1:8000"),
        (" http://127.0.0.1:8000// ", "http://127.0.0.1:8000"),
        ("localhost", "http://localhost"),
        ("https://example.org/comem/", "https://example.org/comem"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("HTTP://Example.org", "HTTP://Example.org"),
    ],
)
def test_addresses(url: str, expected: str) -> None:
    assert service_url(url) == expected
    assert Client(url).url == expected


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "it names no host"),
        ("http://", "it names no host"),
        (":8000", "it names no host"),
        ("127.0.0.1:99999", "Port out of range 0-65535"),
        ("127.0.0.1:-1", "Port"),
        ("127.0.0.1:80a", "Port could not be cast to integer"),
        ("127.0.0.1:0", "port 0"),
        ("http:/127.0.0.1:8000", "'http:' is not the name of a host"),
        ("http//127.0.0.1:8000", "'http' is not the name of a host"),
        ("htp://127.0.0.1:8000", "htp:// is neither http:// nor https://"),
        ("ftp://127.0.0.1", "ftp:// is neither"),
        ("my host:8000", "is not the name of a host"),
        ("http://a,b:8000", "is not the name of a host"),
        ("http://[::1:8000", "Invalid IPv6 URL"),
        ("http://me:secret@127.0.0.1", "more than scheme, host, port and path"),
        ("http://127.0.0.1:8000/?a=1", "more than scheme, host, port and path"),
        ("http://127.0.0.1:8000/#top", "more than scheme, host, port and path"),
    ],
)
def test_what_is_no_address_is_a_sentence(url: str, words: str) -> None:
    with pytest.raises(ValueError, match="is not an address") as raised:
        Client(url)
    assert words in str(raised.value)
    assert "http://127.0.0.1:8000" in str(raised.value)
