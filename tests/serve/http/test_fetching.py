"""Images by URL: from listed hosts alone, over https, never from a private address, within seconds and bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.certificate import with_tls
from support.tiny import png
from support.website import Site, running

from comem_ray.config import ApiConfig, FetchConfig
from comem_ray.knowledge.fetch import Fetcher
from serve.http.errors import ApiError
from serve.http.fetching import remote_image


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site()
    monkeypatch.setenv("SSL_CERT_FILE", str(with_tls(site, tmp_path)))
    site.files["/a.png"] = png(1)
    with running(site):
        yield site


def host(site: Site) -> str:
    return f"127.0.0.1:{site.server_port}"


def fetch(site: Site, url: str, **limits: Any) -> bytes:
    """Through a Fetcher that may reach this machine, which the public one may not."""
    config = ApiConfig(fetch_hosts=[host(site)], **limits)
    settings = FetchConfig(allow_private=True, timeout_s=1, retries=0)
    fetcher = Fetcher(settings, config.max_body_bytes, config.fetch_hosts)
    return asyncio.run(remote_image(url, config, "image", fetcher))


def refusal(call: Any, *args: Any, **limits: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        call(*args, **limits)
    assert raised.value.status_code == 422
    assert raised.value.field == "image"
    return raised.value


def of_public_fetcher(url: str, *hosts: str) -> ApiError:
    config = ApiConfig(fetch_hosts=list(hosts), body_timeout_s=2)
    return refusal(lambda: asyncio.run(remote_image(url, config)))


def test_an_image_of_a_listed_host(site: Site) -> None:
    assert fetch(site, f"https://{host(site)}/a.png") == png(1)


def test_without_hosts_an_image_is_sent_itself() -> None:
    error = of_public_fetcher("https://example.org/a.png")
    assert (error.type, error.message) == ("invalid_image", "image is not base64: this is a URL, send the image itself")


@pytest.mark.parametrize(
    ("url", "type"),
    [
        ("http://{}/a.png", "fetch_scheme"),
        ("ftp://{}/a.png", "fetch_scheme"),
        ("file:///etc/passwd", "fetch_scheme"),
        ("https://localhost:{port}/a.png", "fetch_host"),
        ("https://127.0.0.1/a.png", "fetch_host"),
        ("https://example.org/a.png", "fetch_host"),
        ("https://{}@example.org/a.png", "fetch_host"),
        ("https://{}.example.org/a.png", "fetch_url"),
        ("https://", "fetch_url"),
        ("https://[::1/a.png", "fetch_url"),
    ],
)
def test_another_address_is_not_fetched(site: Site, url: str, type: str) -> None:
    error = refusal(fetch, site, url.format(host(site), port=site.server_port))
    assert error.type == type
    assert not site.counts


@pytest.mark.parametrize(
    ("location", "type"),
    [
        ("https://example.org/a.png", "fetch_host"),
        ("//example.org/a.png", "fetch_host"),
        ("http://127.0.0.1:{port}/a.png", "fetch_scheme"),
        ("https://localhost:{port}/a.png", "fetch_host"),
        ("file:///etc/passwd", "fetch_scheme"),
        ("/out", "fetch_redirects"),
    ],
)
def test_a_redirect_does_not_leave_the_list(site: Site, location: str, type: str) -> None:
    site.answers["/out"] = (302, b"", {"Location": location.format(port=site.server_port)})
    assert refusal(fetch, site, f"https://{host(site)}/out").type == type
    assert not site.counts["/a.png"]


def test_a_redirect_within_the_list(site: Site) -> None:
    site.answers["/out"] = (302, b"", {"Location": "/a.png"})
    assert fetch(site, f"https://{host(site)}/out") == png(1)


@pytest.mark.parametrize(
    "name",
    ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "[fd00::1]", "0.0.0.0"],
)
def test_a_listed_host_at_a_private_address(name: str) -> None:
    assert of_public_fetcher(f"https://{name}/a.png", name).type in ("fetch_private", "fetch_dns")


def test_a_host_that_is_slow(site: Site) -> None:
    for path in ("/silent", "/trickle", "/header_trickle"):
        start = time.monotonic()
        assert refusal(fetch, site, f"https://{host(site)}{path}", body_timeout_s=1.5).type == "fetch_timeout"
        assert time.monotonic() - start < 2.5


def test_too_many_bytes(site: Site) -> None:
    for path in ("/large", "/endless"):
        error = refusal(fetch, site, f"https://{host(site)}{path}", max_body_bytes=50_000)
        assert error.type == "fetch_too_large"


@pytest.mark.parametrize(
    ("body", "type"),
    [
        (b"<html><body>log in</body></html>", "fetch_not_image"),
        (b'{"secret": 1}', "fetch_not_image"),
        (b"", "fetch_empty"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "image_svg"),
        (bytes(range(256)), "image_unreadable"),
    ],
)
def test_what_is_not_an_image(site: Site, body: bytes, type: str) -> None:
    site.files["/b.png"] = body
    error = refusal(fetch, site, f"https://{host(site)}/b.png")
    assert error.type == type
    assert "secret" not in error.message


def test_the_pixels_of_its_header_count(site: Site) -> None:
    assert refusal(fetch, site, f"https://{host(site)}/a.png", max_image_pixels=100).type == "image_too_many_pixels"
