"""A real HTTP server on 127.0.0.1, which counts its requests."""

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.website import BODY, Site, running

from comem_ray.config import FetchConfig
from comem_ray.knowledge.addresses import is_public
from comem_ray.knowledge.fetch import Fetcher, FetchError


@pytest.fixture
def site() -> Iterator[Site]:
    with running(Site()) as site:
        yield site


def fetcher(max_bytes: int = 100_000, **settings: object) -> Fetcher:
    fast = {"allow_private": True, "timeout_s": 1, "retries": 2, "backoff_s": 0.01}
    return Fetcher(FetchConfig.model_validate({**fast, **settings}), max_bytes)


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


def test_a_404_is_final_and_requested_once(site):
    error = failure(site.url("/missing"))
    assert (error.reason, error.retryable, site.counts["/missing"]) == ("fetch_http_404", False, 1)


@pytest.mark.parametrize("status", [400, 405, 410, 414])
def test_what_blames_the_address_is_final(site, status):
    site.answers["/a.jpg"] = (status, b"", {})
    error = failure(site.url("/a.jpg"))
    assert (error.reason, error.retryable, site.counts["/a.jpg"]) == (f"fetch_http_{status}", False, 1)


@pytest.mark.parametrize("status", [401, 402, 403, 407, 418, 421, 423, 451, 499, 511, 202, 204])
def test_what_depends_on_who_asks_or_when_is_left_to_a_later_run(site, status):
    site.answers["/a.jpg"] = (status, b"", {})
    error = failure(site.url("/a.jpg"))
    assert (error.reason, error.retryable, site.counts["/a.jpg"]) == (f"fetch_http_{status}", True, 1)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_client_reads_which_field_to_change(site, status):
    site.answers["/a.jpg"] = (status, b"<html>Please set a user agent</html>", {})
    error = failure(site.url("/a.jpg"))
    assert "ingest.fetch.user_agent" in error.detail
    assert error.retryable


PAGES = {
    "HTML": (b"<!DOCTYPE html><html><body>Too many requests</body></html>", {"Content_Type": "text/html"}),
    "HTML declared as an image": (b"\n <html><p>Too many requests</p></html>", {"Content_Type": "image/jpeg"}),
    "HTML in UTF-16": ("\ufeff<html>Warten Sie</html>".encode("utf-16"), {}),
    "HTML in Shift JIS": ("<html>しばらくお待ちください</html>".encode("shift_jis"), {"Content_Type": "text/html"}),
    "JSON": (b'{"error": "rate limit", "retry_after": 60}', {"Content_Type": "application/json"}),
    "JSON of no type": (b'[{"error": "robots are not served here"}]', {}),
    "text": (b"Too many requests, see https://example.org/policy", {}),
    "XML": (b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>", {"Content_Type": "application/xml"}),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_in_place_of_an_image_is_left_to_a_later_run_and_never_cached(site, tmp_path, name):
    body, headers = PAGES[name]
    site.answers["/a.jpg"] = (200, body, headers)
    error = failure(site.url("/a.jpg"), cache=str(tmp_path))
    assert (error.reason, error.retryable, site.counts["/a.jpg"]) == ("fetch_not_image", True, 1)
    assert "ingest.fetch.user_agent" in error.detail
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    site.answers["/a.jpg"] = (200, BODY, {"Content_Type": "image/jpeg"})
    assert fetcher(cache=str(tmp_path)).fetch(site.url("/a.jpg")) == BODY


def test_an_empty_body_is_left_to_a_later_run(site):
    site.answers["/a.jpg"] = (200, b"", {})
    error = failure(site.url("/a.jpg"))
    assert (error.reason, error.retryable) == ("fetch_empty", True)


def test_a_page_that_an_earlier_version_cached_is_fetched_again(site, tmp_path):
    url = site.url("/ok")
    key = hashlib.sha256(url.encode()).hexdigest()
    (tmp_path / key[:2]).mkdir()
    (tmp_path / key[:2] / key).write_bytes(b"<html>Too many requests</html>")
    assert failure(url, cache=str(tmp_path), enabled=False).reason == "fetch_disabled"
    assert fetcher(cache=str(tmp_path)).fetch(url) == BODY
    assert (tmp_path / key[:2] / key).read_bytes() == BODY


@pytest.mark.parametrize(
    ("url", "requested"),
    [
        ("/caf%C3%A9 50%.jpg", "/caf%C3%A9%2050%25.jpg"),
        ("/100%_%C3%A9.jpg", "/100%25_%C3%A9.jpg"),
        ("/é%20%zz.jpg?a=%&b=%41", "/%C3%A9%20%25zz.jpg?a=%25&b=%41"),
        ("/a%2.jpg", "/a%252.jpg"),
        ("/plain%20name.jpg", "/plain%20name.jpg"),
    ],
)
def test_valid_escapes_stay_and_a_stray_percent_is_escaped(site, url, requested):
    site.files[requested] = BODY
    assert fetcher().fetch(site.url(url)) == BODY


@pytest.mark.parametrize(
    ("location", "requested"),
    [
        ("/Köln/Straße.jpg".encode(), "/K%C3%B6ln/Stra%C3%9Fe.jpg"),
        ("/日本.jpg?q=é".encode(), "/%E6%97%A5%E6%9C%AC.jpg?q=%C3%A9"),
        ("/é%20100%.jpg".encode(), "/%C3%A9%20100%25.jpg"),
        ("/é.jpg".encode("latin-1"), "/%E9.jpg"),
        (b"relative name.jpg", "/relative%20name.jpg"),
    ],
)
def test_a_redirect_in_raw_bytes_leads_where_it_says(site, location, requested):
    site.answers["/from"] = (302, b"", {"Location": location.decode("latin-1")})
    site.files[requested] = BODY
    assert fetcher().fetch(site.url("/from")) == BODY


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


def test_a_lost_connection_is_noticed_where_no_length_is_announced(site, tmp_path):
    error = failure(site.url("/lost"), cache=str(tmp_path))
    assert (error.reason, error.retryable, site.counts["/lost"]) == ("fetch_cut_short", True, 3)
    assert not list(tmp_path.rglob("*"))


def test_redirects(site):
    assert fetcher().fetch(site.url("/moved")) == BODY
    assert failure(site.url("/round")).reason == "fetch_redirects"
    assert failure(site.url("/to_file")).reason == "fetch_scheme"


def test_a_redirect_into_a_private_network_is_refused(site, monkeypatch):
    # The first hop is let through as if the site were public, every other address is judged as it is.
    monkeypatch.setattr("comem_ray.knowledge.addresses.is_public", lambda a: str(a) == "127.0.0.1" or is_public(a))
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
        ("s3://bucket/a.png", "fetch_scheme"),
        ("http://", "fetch_url"),
        ("http://[::1", "fetch_url"),
        ("http://nowhere.invalid/a.png", "fetch_dns"),
        ("http://127.0.0.1:1/a.png", "fetch_connection"),
    ],
)
def test_urls_that_lead_nowhere(url, reason):
    assert failure(url, retries=0).reason == reason


@pytest.mark.parametrize("url", ["ftp://example.org/a.png", "http://"])
def test_what_no_configuration_would_fetch_is_not_called_disabled(url):
    error = failure(url, enabled=False)
    assert error.reason in ("fetch_scheme", "fetch_url")
    assert not error.retryable


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
    messages = {str(failure("http://127.0.0.1:1/a", retries=0)) for _ in range(2)}
    assert len(messages) == 1
    assert "0x" not in messages.pop()
