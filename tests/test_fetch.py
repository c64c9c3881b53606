"""A real HTTP server on 127.0.0.1, which counts its requests."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from comem_ray.config import Fetch
from comem_ray.addresses import is_public
from comem_ray.fetch import Fetcher, FetchError

BODY = b"picture" * 1_000


class Site(ThreadingHTTPServer):
    """Answers by path; a test sets `fails` to the number of failures that come before success."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.counts: Counter[str] = Counter()
        self.headers: dict[str, str] = {}
        self.fails = 0
        self.now = self.most = 0
        self.lock = threading.Lock()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.counts[self.path] += 1
            self.server.headers = dict(self.headers)
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            getattr(self, "get" + self.path.split("?")[0].replace("/", "_"))()
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with self.server.lock:
                self.server.now -= 1

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(body)), **named}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def get_ok(self) -> None:
        self.send(200, BODY)

    def get_missing(self) -> None:
        self.send(404, b"not here")

    def get_shaky(self) -> None:
        failed = self.server.counts["/shaky"] <= self.server.fails
        self.send(500) if failed else self.send(200, BODY)

    def get_busy(self) -> None:
        failed = self.server.counts["/busy"] <= self.server.fails
        self.send(429, Retry_After="1") if failed else self.send(200, BODY)

    def get_closed(self) -> None:
        self.send(503, Retry_After=formatdate(time.time() + 3_600, usegmt=True))

    def get_silent(self) -> None:
        time.sleep(3)

    def get_trickle(self) -> None:
        self.send(200, Content_Length="1000")
        for _ in range(100):
            self.wfile.write(b"x")
            time.sleep(0.1)

    def get_header_trickle(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for n in range(100):
            self.wfile.write(b"X-%d: 1\r\n" % n)
            time.sleep(0.1)

    def get_large(self) -> None:
        self.send(200, bytes(200_000))

    def get_endless(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(1_000):
            self.wfile.write(b"4000\r\n" + bytes(0x4000) + b"\r\n")

    def get_short(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(b"too little")
        self.close_connection = True

    def get_moved(self) -> None:
        self.send(302, Location="/ok")

    def get_round(self) -> None:
        self.send(302, Location="/round")

    def get_to_file(self) -> None:
        self.send(302, Location="file:///etc/hostname")

    def get_to_link_local(self) -> None:
        self.send(302, Location="http://169.254.169.254/latest/meta-data")

    def get_slow(self) -> None:
        time.sleep(0.1)
        self.send(200, BODY)


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def fetcher(max_bytes: int = 100_000, **settings: object) -> Fetcher:
    fast = {"allow_private": True, "timeout_s": 1, "retries": 2, "backoff_s": 0.01}
    return Fetcher(Fetch.model_validate({**fast, **settings}), max_bytes)


def failure(url: str, max_bytes: int = 100_000, **settings: object) -> FetchError:
    with pytest.raises(FetchError) as caught:
        fetcher(max_bytes, **settings).fetch(url)
    return caught.value


def test_fetches_bytes_and_says_who_asks(site):
    assert fetcher(user_agent="tests (me@example.org)").fetch(site.url("/ok")) == BODY
    assert site.headers["User-Agent"] == "tests (me@example.org)"
    assert site.headers["Host"] == f"127.0.0.1:{site.server_port}"


def test_host_by_name(site):
    assert fetcher().fetch(site.url("/ok").replace("127.0.0.1", "localhost")) == BODY


def test_connections_are_used_again(site):
    one = fetcher()
    for _ in range(3):
        one.fetch(site.url("/ok"))
    (pool,) = [one._pools.pools.get(key) for key in one._pools.pools.keys()]  # noqa: SIM118 (it is no dictionary)
    assert (pool.num_connections, pool.num_requests) == (1, 3)


def test_not_found_is_final_and_asked_once(site):
    error = failure(site.url("/missing"))
    assert (error.reason, error.retryable, site.counts["/missing"]) == ("fetch_http_404", False, 1)


def test_a_server_error_is_retried(site):
    site.fails = 2
    assert fetcher().fetch(site.url("/shaky")) == BODY
    assert site.counts["/shaky"] == 3


def test_a_server_error_that_stays_is_left_to_a_later_run(site):
    site.fails = 99
    error = failure(site.url("/shaky"))
    assert (error.reason, error.retryable, site.counts["/shaky"]) == ("fetch_http_500", True, 3)


def test_retry_after_is_honoured(site):
    site.fails = 1
    start = time.monotonic()
    assert fetcher().fetch(site.url("/busy")) == BODY
    assert time.monotonic() - start >= 1
    assert site.counts["/busy"] == 2


def test_a_host_that_asks_for_an_hour_is_left_to_a_later_run(site):
    error = failure(site.url("/closed"))
    assert (error.reason, error.retryable, site.counts["/closed"]) == ("fetch_http_503", True, 1)


@pytest.mark.parametrize("path", ["/silent", "/trickle", "/header_trickle"])
def test_slow_hosts_do_not_hold_the_job(site, path):
    start = time.monotonic()
    error = failure(site.url(path), timeout_s=0.15, retries=0)
    assert (error.reason, error.retryable) == ("fetch_timeout", True)
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("path", ["/large", "/endless"])
def test_too_large_is_refused_while_it_streams(site, path):
    error = failure(site.url(path))
    assert (error.reason, error.retryable) == ("fetch_too_large", False)


def test_a_body_cut_short_is_noticed(site):
    error = failure(site.url("/short"))
    assert error.retryable
    assert error.reason in ("fetch_cut_short", "fetch_connection")
    assert site.counts["/short"] == 3


def test_redirects(site):
    assert fetcher().fetch(site.url("/moved")) == BODY
    assert failure(site.url("/round")).reason == "fetch_redirects"
    assert failure(site.url("/to_file")).reason == "fetch_scheme"


def test_a_redirect_into_a_private_network_is_refused(site, monkeypatch):
    # The first hop is let through as if the site were public, every other address is judged as it is.
    monkeypatch.setattr("comem_ray.addresses.is_public", lambda a: str(a) == "127.0.0.1" or is_public(a))
    error = failure(site.url("/to_link_local"), allow_private=False)
    assert (error.reason, site.counts["/to_link_local"]) == ("fetch_private", 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"])
def test_private_addresses_are_refused(site, host):
    error = failure(f"http://{host}:{site.server_port}/ok", allow_private=False)
    assert error.reason in ("fetch_private", "fetch_dns")
    assert not site.counts


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.org/a.png", "fetch_scheme"),
        ("file:///etc/hostname", "fetch_scheme"),
        ("http://", "fetch_url"),
        ("http://[::1", "fetch_url"),
        ("http://nowhere.invalid/a.png", "fetch_dns"),
        ("http://127.0.0.1:1/a.png", "fetch_connection"),
    ],
)
def test_urls_that_lead_nowhere(url, reason):
    assert failure(url, retries=0).reason == reason


def test_disabled_fetches_nothing_but_what_the_cache_holds(site, tmp_path):
    error = failure(site.url("/ok"), enabled=False)
    assert (error.reason, error.retryable) == ("fetch_disabled", True)
    cache = str(tmp_path / "cache")
    assert fetcher(cache=cache).fetch(site.url("/ok")) == BODY
    assert fetcher(cache=cache, enabled=False).fetch(site.url("/ok")) == BODY
    assert site.counts["/ok"] == 1
    assert [len(p.read_bytes()) for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [len(BODY)]


def test_a_failure_is_not_cached(site, tmp_path):
    site.fails = 1
    cache = str(tmp_path)
    assert failure(site.url("/shaky"), cache=cache, retries=0).reason == "fetch_http_500"
    assert fetcher(cache=cache).fetch(site.url("/shaky")) == BODY


def test_requests_at_once_to_one_host_are_limited(site):
    one = fetcher(per_host=2)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one.fetch, [site.url(f"/slow?{n}") for n in range(8)]))
    assert site.most == 2


def test_sentences_are_the_same_in_every_run(site):
    said = {str(failure("http://127.0.0.1:1/a", retries=0)) for _ in range(2)}
    assert len(said) == 1
    assert "0x" not in said.pop()
