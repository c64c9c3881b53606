"""Images by URL: http and https only, polite to hosts, bounded in time and bytes, never into a private network.

The address that is checked is the address that is connected to: the host is resolved here, each address is judged, and
the connection is made to that address with the host's name in the Host header and in TLS. So neither a redirect nor a
name that resolves differently the second time reaches a private, loopback, link-local or reserved address. Proxies of
the environment are not used.

What fails is a FetchError (a ImageError) with a reason code; `retryable` where a later run may succeed:

    retryable      fetch_disabled, fetch_private (both as configured), fetch_dns, fetch_connection, fetch_tls,
                   fetch_timeout, fetch_cut_short, fetch_http_408, fetch_http_425, fetch_http_429, fetch_http_5xx
    not retryable  fetch_url, fetch_scheme, fetch_redirects, fetch_too_large, fetch_http_4xx (any other)

Decodes no image. Thread-safe: one Fetcher serves all threads of a worker.
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import random
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout, Url, parse_url

from comem_ray.artifacts import write_atomic
from comem_ray.config import FetchConfig, resolve
from comem_ray.knowledge.addresses import resolved
from comem_ray.knowledge.images import ImageError

MAX_REDIRECTS = 5
MAX_ADDRESSES = 3  # addresses of a host that are tried in turn
MAX_WAIT_S = 60.0  # a host that asks for a longer pause is left to a later run
SLOWEST = 10  # a download may take this many times the time-out in all
_PIECE = 65_536
_AGAIN = {408, 425, 429, 500, 502, 503, 504}  # 425: too early


class FetchError(ImageError):
    """An image that could not be fetched. `again`: worth another try now; `wait_s`: the pause the host asked for."""

    def __init__(self, reason: str, detail: str, retryable: bool = False, again: bool = False, wait_s: float = 0):
        super().__init__(reason, detail, retryable)
        self.again, self.wait_s = again, wait_s


class _Host:
    """What is shared by all requests to one host: how many run at once, and the pause it asked for."""

    def __init__(self, per_host: int):
        self.slots, self.not_before = threading.Semaphore(per_host), 0.0


class Fetcher:
    """Fetches bytes by URL under the rules of a `Fetch` section; `max_bytes` caps one download."""

    def __init__(self, settings: FetchConfig, max_bytes: int):
        self._settings, self._max_bytes = settings, max_bytes
        self._cache = resolve(settings.cache) if settings.cache else None
        self._hosts: dict[str, _Host] = defaultdict(lambda: _Host(settings.per_host))
        self._lock = threading.Lock()
        self._pools = urllib3.PoolManager(
            num_pools=64, maxsize=settings.per_host, ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where()
        )
        self._pools.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def fetch(self, url: str) -> bytes:
        """The bytes behind `url`, from the cache where they are there. Raises FetchError."""
        cached = self._cached(url)
        if cached is not None and cached.exists():
            return cached.read_bytes()
        if not self._settings.enabled:
            raise FetchError("fetch_disabled", "the image is a URL and ingest.fetch.enabled is false", True)
        data = self._persistently(url)
        if cached is not None:
            write_atomic(cached, lambda p: p.write_bytes(data) and None)
        return data

    def _cached(self, url: str) -> Path | None:
        if self._cache is None:
            return None
        key = hashlib.sha256(url.encode()).hexdigest()
        return self._cache / key[:2] / key

    def _persistently(self, url: str) -> bytes:
        tries = self._settings.retries + 1
        for attempt in range(tries):
            try:
                return self._follow(url)
            except FetchError as error:
                pause = max(error.wait_s, self._settings.backoff_s * 2**attempt * random.uniform(1, 1.25))
                if not error.again or attempt + 1 == tries or pause > MAX_WAIT_S:
                    raise
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _follow(self, url: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._get(_parsed(url))
            if isinstance(answer, bytes):
                return answer
            url = _joined(url, answer)
        raise FetchError("fetch_redirects", f"more than {MAX_REDIRECTS} redirects")

    def _get(self, url: Url) -> bytes | str:
        """One request: the body, or where a redirect leads."""
        assert url.host
        with self._lock:
            host = self._hosts[url.host]
        with host.slots:
            time.sleep(max(0.0, host.not_before - time.monotonic()))
            try:
                with _plain_errors():
                    return self._body(self._request(url))
            except FetchError as error:
                host.not_before = max(host.not_before, time.monotonic() + min(error.wait_s, MAX_WAIT_S))
                raise

    def _request(self, url: Url) -> BaseHTTPResponse:
        addresses = self._addresses(url)
        for address in addresses[:-1]:
            try:
                return self._request_at(address, url)
            except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
                continue
        return self._request_at(addresses[-1], url)

    def _addresses(self, url: Url) -> list[str]:
        host = (url.host or "").strip("[]")
        try:
            addresses = resolved(host, _port(url), self._settings.allow_private)
        except OSError as error:
            raise FetchError("fetch_dns", f"the host {host} is not known", True, again=True) from error
        if not addresses:
            raise FetchError(
                "fetch_private",
                f"the host {host} is at a private or reserved address; ingest.fetch.allow_private would permit it",
                retryable=True,
            )
        return addresses[:MAX_ADDRESSES]

    def _request_at(self, address: str, url: Url) -> BaseHTTPResponse:
        named = {"server_hostname": url.host, "assert_hostname": url.host} if url.scheme == "https" else None
        pool = self._pools.connection_from_host(address, _port(url), url.scheme, pool_kwargs=named)
        return pool.urlopen(
            "GET",
            url.request_uri,
            headers={
                "Host": url.netloc or "",
                "User-Agent": self._settings.user_agent,
                "Accept": "image/*",
                "Accept-Encoding": "identity",
            },
            redirect=False,
            retries=False,
            assert_same_host=False,
            preload_content=False,
            timeout=Timeout(connect=self._settings.timeout_s, read=self._settings.timeout_s),
        )

    def _body(self, response: BaseHTTPResponse) -> bytes | str:
        try:
            location = response.get_redirect_location()
            if location:
                return location
            if response.status != 200:
                raise _refusal(response)
            return self._read(response)
        finally:
            response.close()  # closes the connection only where unread bytes are left in it

    def _read(self, response: BaseHTTPResponse) -> bytes:
        promised = response.headers.get("Content-Length", "")
        size = int(promised) if promised.isdecimal() else 0
        deadline = time.monotonic() + SLOWEST * self._settings.timeout_s
        body = bytearray()
        while size <= self._max_bytes and (piece := response.read1(_PIECE, decode_content=True)):
            body += piece
            size = max(size, len(body))
            if time.monotonic() > deadline:
                raise FetchError("fetch_timeout", "the download takes too long", True, again=True)
        if size > self._max_bytes:
            raise FetchError("fetch_too_large", f"more than {self._max_bytes:,} bytes")
        if len(body) < size and not response.headers.get("Content-Encoding"):
            raise FetchError("fetch_cut_short", f"{len(body):,} bytes of {size:,} came", True, again=True)
        return bytes(body)


def _parsed(url: str) -> Url:
    try:
        parsed = parse_url(url)
    except urllib3.exceptions.LocationParseError as error:
        raise FetchError("fetch_url", "the URL cannot be parsed") from error
    if parsed.scheme not in ("http", "https"):
        raise FetchError("fetch_scheme", f"the scheme is {parsed.scheme or 'missing'}, wanted http or https")
    if not parsed.host:
        raise FetchError("fetch_url", "the URL names no host")
    return parsed


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise FetchError("fetch_url", "a redirect leads to what is no URL") from error


def _port(url: Url) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _refusal(response: BaseHTTPResponse) -> FetchError:
    status = response.status
    wait = _retry_after(response.headers.get("Retry-After", "")) if status in (429, 503) else 0.0
    detail = f"the host answered with HTTP status {status}"
    return FetchError(f"fetch_http_{status}", detail, status in _AGAIN or status >= 500, status in _AGAIN, wait)


def _retry_after(value: str) -> float:
    """Seconds of a Retry-After header, which holds either seconds or a date."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turns urllib3's errors into FetchErrors whose sentences are the same in every run (no object addresses)."""
    try:
        yield
    except urllib3.exceptions.NewConnectionError as error:  # a kind of TimeoutError to urllib3
        raise FetchError("fetch_connection", "the host takes no connection", True, again=True) from error
    except urllib3.exceptions.TimeoutError as error:
        raise FetchError("fetch_timeout", "the host does not answer in time", True, again=True) from error
    except urllib3.exceptions.SSLError as error:
        raise FetchError("fetch_tls", "no trusted TLS connection with the host", True) from error
    except urllib3.exceptions.DecodeError as error:
        raise FetchError("fetch_cut_short", "the body's encoding is broken", True, again=True) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise FetchError("fetch_connection", "the connection failed or broke", True, again=True) from error


class _Patient:
    """A connection whose headers must come in time as a whole, not byte by byte (mixed into urllib3's)."""

    def getresponse(self) -> Any:
        sock, seconds = self.sock, self.timeout  # type: ignore[attr-defined]
        late = threading.Event()

        def hang_up() -> None:
            late.set()
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

        guard = threading.Timer(seconds * SLOWEST, hang_up)
        guard.daemon = True
        guard.start()
        try:
            return super().getresponse()  # type: ignore[misc]
        finally:
            guard.cancel()
            if late.is_set():  # the headers so far would pass for all of them
                raise TimeoutError


class _HTTPConnection(_Patient, HTTPConnection):
    pass


class _HTTPSConnection(_Patient, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection
