"""Images by URL: http and https only, polite to hosts, bounded in time and bytes, never into a private network.

The checked address is the address of the connection: this module resolves the host, checks each address, and connects
to that address with the host's name in the Host header and in TLS. So neither a redirect nor a name that resolves
differently the second time reaches a private, loopback, link-local or reserved address. Proxies of the environment are
not used.

A failure is a FetchError (an ImageError) with a reason code. It is `retryable` if a later run may succeed:

    retryable      fetch_disabled, fetch_private (both as configured), fetch_dns, fetch_connection, fetch_tls,
                   fetch_timeout, fetch_cut_short, fetch_redirects, and what `fetch_answers` says of status and body
    not retryable  fetch_url, fetch_scheme, fetch_host, fetch_too_large

The cache keeps images alone: a page that it holds from an earlier version is fetched again.
Decodes no image. Thread-safe: all threads of a worker share one Fetcher.
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
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout, Url, parse_url

from comem_ray.artifacts import write_atomic
from comem_ray.config import FetchConfig, resolve
from comem_ray.knowledge.addresses import resolve_addresses
from comem_ray.knowledge.fetch_answers import (
    IMAGE_STATUSES,
    FetchError,
    ends_early,
    escape_stray_percents,
    page_kind,
    redirect_target,
    refuse_page,
    status_error,
)

MAX_REDIRECTS = 5
MAX_ADDRESSES = 3  # addresses of a host that are tried in turn
MAX_WAIT_S = 60.0  # a host that asks for a longer pause is left to a later run
MAX_TIMEOUTS = 10  # a whole download may take this many times the timeout
_PIECE = 65_536


class _Host:
    """The state of all requests to one host: the number under way, and the end of the pause that it demanded."""

    def __init__(self, per_host: int):
        self.slots, self.not_before = threading.Semaphore(per_host), 0.0


class Fetcher:
    """Fetches bytes by URL under the rules of `settings`. A download has at most `max_bytes` bytes.

    `only`: hosts (`example.org`, or `example.org:8443`) outside of which nothing is fetched, nor without TLS, whatever
    redirects say; None: any.
    """

    def __init__(self, settings: FetchConfig, max_bytes: int, only: Collection[str] | None = None):
        self._settings, self._max_bytes = settings, max_bytes
        self._only = None if only is None else {host.lower() for host in only}
        self._cache = resolve(settings.cache) if settings.cache else None
        self._hosts: dict[str, _Host] = defaultdict(lambda: _Host(settings.per_host))
        self._lock = threading.Lock()
        self._pools = urllib3.PoolManager(
            num_pools=64, maxsize=settings.per_host, ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where()
        )
        self._pools.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def fetch(self, url: str) -> bytes:
        """The bytes of `url`, from the cache if it has them. Raises FetchError."""
        _parse(url)
        cached = self._cached(url)
        if cached is not None and cached.exists() and page_kind(data := cached.read_bytes()) is None and data:
            return data
        if not self._settings.enabled:
            raise FetchError("fetch_disabled", "the image is a URL and ingest.fetch.enabled is false", True)
        data = self._fetch_with_retries(url)
        if cached is not None:
            write_atomic(cached, lambda p: p.write_bytes(data) and None)
        return data

    def _cached(self, url: str) -> Path | None:
        if self._cache is None:
            return None
        key = hashlib.sha256(url.encode()).hexdigest()
        return self._cache / key[:2] / key

    def _fetch_with_retries(self, url: str) -> bytes:
        tries = self._settings.retries + 1
        for attempt in range(tries):
            try:
                return self._follow(url)
            except FetchError as error:
                pause = max(error.wait_s, self._settings.backoff_s * 2**attempt * random.uniform(1, 1.25))
                if not error.retry_now or attempt + 1 == tries or pause > MAX_WAIT_S:
                    raise
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _follow(self, url: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            body = self._get(_parse(url))
            if isinstance(body, bytes):
                return body
            url = redirect_target(url, body)
        raise FetchError("fetch_redirects", f"more than {MAX_REDIRECTS} redirects, as to a log-in or in a circle", True)

    def _get(self, url: Url) -> bytes | str:
        """One request: the body as bytes, or the target of a redirect as text."""
        assert url.host
        self._refuse_other_hosts(url)
        with self._lock:
            host = self._hosts[url.host]
        with host.slots:
            time.sleep(max(0.0, host.not_before - time.monotonic()))
            try:
                with _as_fetch_errors():
                    return self._body(self._request(url))
            except FetchError as error:
                host.not_before = max(host.not_before, time.monotonic() + min(error.wait_s, MAX_WAIT_S))
                raise

    def _refuse_other_hosts(self, url: Url) -> None:
        if self._only is None:
            return
        if url.scheme != "https":
            raise FetchError("fetch_scheme", f"the scheme is {url.scheme}, wanted https")
        host = url.host if _port(url) == 443 else f"{url.host}:{_port(url)}"
        if host not in self._only:
            raise FetchError("fetch_host", f"the host {host} is not one of those that images may come from")

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
            addresses = resolve_addresses(host, _port(url), self._settings.allow_private)
        except OSError as error:
            raise FetchError("fetch_dns", f"the host {host} is not known", True, retry_now=True) from error
        if not addresses:
            raise FetchError(
                "fetch_private",
                f"the host {host} is at a private or reserved address; ingest.fetch.allow_private would permit it",
                retryable=True,
            )
        return addresses[:MAX_ADDRESSES]

    def _request_at(self, address: str, url: Url) -> BaseHTTPResponse:
        tls_names = {"server_hostname": url.host, "assert_hostname": url.host} if url.scheme == "https" else None
        pool = self._pools.connection_from_host(address, _port(url), url.scheme, pool_kwargs=tls_names)
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
            if response.status not in IMAGE_STATUSES:
                wait_s = _retry_after(response.headers.get("Retry-After", "")) if response.status in (429, 503) else 0
                raise status_error(response.status, wait_s)
            data = self._read(response)
            refuse_page(data, response.headers)
            return data
        finally:
            response.close()  # closes the connection only where unread bytes are left in it

    def _read(self, response: BaseHTTPResponse) -> bytes:
        announced = response.headers.get("Content-Length", "")
        size = int(announced) if announced.isdecimal() else 0
        deadline = time.monotonic() + MAX_TIMEOUTS * self._settings.timeout_s
        body = bytearray()
        while size <= self._max_bytes and (piece := response.read1(_PIECE, decode_content=True)):
            body += piece
            size = max(size, len(body))
            if time.monotonic() > deadline:
                raise FetchError("fetch_timeout", "the download takes too long", True, retry_now=True)
        if size > self._max_bytes:
            raise FetchError("fetch_too_large", f"more than {self._max_bytes:,} bytes")
        if len(body) < size and not response.headers.get("Content-Encoding"):
            raise FetchError("fetch_cut_short", f"only {len(body):,} of {size:,} bytes arrived", True, retry_now=True)
        if not (announced or response.headers.get("Transfer-Encoding")) and ends_early(body):
            raise FetchError("fetch_cut_short", "the image ends before its last byte", True, retry_now=True)
        return bytes(body)


def _parse(url: str) -> Url:
    try:
        parsed = parse_url(escape_stray_percents(url.strip()))
    except urllib3.exceptions.LocationParseError as error:
        raise FetchError("fetch_url", "the URL cannot be parsed") from error
    if parsed.scheme not in ("http", "https"):
        raise FetchError("fetch_scheme", f"the scheme is {parsed.scheme or 'missing'}, wanted http or https")
    if not parsed.host:
        raise FetchError("fetch_url", "the URL names no host")
    return parsed


def _port(url: Url) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _retry_after(value: str) -> float:
    """Seconds of a Retry-After header, which holds seconds or a date; 0 if it holds neither."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


@contextmanager
def _as_fetch_errors() -> Iterator[None]:
    """Turns urllib3's errors into FetchErrors with the same message in every run (no object addresses)."""
    try:
        yield
    except urllib3.exceptions.NewConnectionError as error:  # a kind of TimeoutError to urllib3
        raise FetchError("fetch_connection", "the host refuses the connection", True, retry_now=True) from error
    except urllib3.exceptions.TimeoutError as error:
        raise FetchError("fetch_timeout", "the host does not answer in time", True, retry_now=True) from error
    except urllib3.exceptions.SSLError as error:
        detail = (
            "no trusted TLS connection with the host: its certificate may have expired, this machine's clock may be "
            "wrong, or the network puts its own in (name the file that trusts it in SSL_CERT_FILE)"
        )
        raise FetchError("fetch_tls", detail, True) from error
    except urllib3.exceptions.DecodeError as error:
        raise FetchError("fetch_cut_short", "the body's encoding is broken", True, retry_now=True) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise FetchError("fetch_connection", "the connection failed or broke", True, retry_now=True) from error


class _HeaderDeadline:
    """Mixed into urllib3's connections: all headers must arrive within MAX_TIMEOUTS timeouts, not just each byte."""

    def getresponse(self) -> Any:
        sock, seconds = self.sock, self.timeout  # type: ignore[attr-defined]
        expired = threading.Event()

        def hang_up() -> None:
            expired.set()
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds * MAX_TIMEOUTS, hang_up)
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()  # type: ignore[misc]
        finally:
            timer.cancel()
            if expired.is_set():  # urllib3 would take an incomplete set of headers for all of them
                raise TimeoutError


class _HTTPConnection(_HeaderDeadline, HTTPConnection):
    pass


class _HTTPSConnection(_HeaderDeadline, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection
