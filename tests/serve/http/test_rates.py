"""How many requests a caller may make per minute, and how many may be under way."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
from starlette.types import Message, Receive, Scope, Send
from support.guarded import Guarded, check, guarded

from comem_ray.config import ApiConfig
from serve.http import rates
from serve.http.keys import load_keys
from serve.http.rates import OpenRequests, RequestRate

A, B = {"Authorization": "Bearer aaaaaaaaaaaaaaaa"}, {"Authorization": "Bearer bbbbbbbbbbbbbbbb"}
KEYS = load_keys(ApiConfig(), {"COMEM_API_KEYS": "a:aaaaaaaaaaaaaaaa,b:bbbbbbbbbbbbbbbb"})


class Calls:
    """Calls a layer as many callers, at times of its own."""

    def __init__(self, per_minute: int):
        self.now = 1_000.0
        self.rate = RequestRate(self._answer, per_minute, lambda: self.now)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def __call__(self, caller: str) -> tuple[int, int | None]:
        """Status and Retry-After."""
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/x", "state": {"caller": caller}}
        asyncio.run(self.rate(scope, receive, send))
        wait = dict(sent[0]["headers"]).get(b"retry-after")
        return sent[0]["status"], None if wait is None else int(wait)


def test_a_bucket_of_tokens() -> None:
    call = Calls(per_minute=3)
    assert [call("a")[0] for _ in range(3)] == [200] * 3
    assert call("a") == (429, 20)
    assert call("b") == (200, None)  # another caller has a bucket of its own
    call.now += 12.5
    assert call("a") == (429, 8)  # rounded up
    call.now += 7.5
    assert call("a") == (200, None)
    assert call("a")[0] == 429
    call.now += 600  # a bucket holds no more than a minute's tokens
    assert [call("a")[0] for _ in range(4)] == [200, 200, 200, 429]


def test_exactly_as_many_as_the_clock_allows() -> None:
    call, answered = Calls(per_minute=60), 0
    for _ in range(1_200):  # ten requests per second for two minutes
        answered += call("a")[0] == 200
        call.now += 0.1
    assert 60 + 118 <= answered <= 60 + 120


def test_idle_callers_are_forgotten(monkeypatch: Any) -> None:
    monkeypatch.setattr(rates, "MAX_CALLERS", 50)
    call = Calls(per_minute=60)
    for n in range(500):
        call(f"address:{n}")
        assert len(call.rate.full_at) <= 51
    call.now += 61
    call("a")
    assert list(call.rate.full_at) == ["a"]


def test_a_rate_per_key_and_health_checks_are_free() -> None:
    with guarded(KEYS, requests_per_minute=2) as app:
        assert [app.echo(**A).status_code for _ in range(3)] == [200, 200, 429]
        response = app.echo(**A)
        assert "2 requests per minute" in check(response, 429, "rate_limited")
        assert 1 <= int(response.headers["retry-after"]) <= 30
        assert app.echo(**B).status_code == 200
        assert {app.http.get("/healthz").status_code for _ in range(10)} == {200}
        check(app.echo(), 401, "missing_key")


def slow(app: Guarded, seconds: float, count: int, headers: dict[str, str]) -> list[httpx.Response]:
    def ask(_: int) -> httpx.Response:
        url = f"http://127.0.0.1:{app.port}/slow"
        return httpx.post(url, json={"text": str(seconds)}, headers=headers, timeout=20)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(ask, range(count)))


def test_open_requests_of_one_key() -> None:
    with guarded(KEYS, max_open_per_key=3) as app:
        responses = slow(app, 1, 8, A)
        refused = [r for r in responses if r.status_code != 200]
        assert len(refused) == 5
        for response in refused:
            assert "3 requests of yours" in check(response, 429, "too_many_open")
        assert app.echo(**A).status_code == 200


def test_open_requests_of_all() -> None:
    with guarded(KEYS, max_open_requests=4) as app, ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda headers: slow(app, 1, 4, headers), (A, B)))
        refused = [r for responses in both for r in responses if r.status_code != 200]
        assert len(refused) == 4
        for response in refused:
            check(response, 429, "too_many_requests")
        assert app.http.get("/healthz").status_code == 200


def test_a_stream_is_under_way_until_its_client_leaves() -> None:
    with guarded(max_open_per_key=1) as app:
        with httpx.stream("GET", f"http://127.0.0.1:{app.port}/stream") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "data: 0"
            check(app.echo(), 429, "too_many_open")
        end = time.monotonic() + 3
        while app.echo().status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_nothing_is_left_of_open_requests() -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError

    layer = OpenRequests(inner, ApiConfig())
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/x", "state": {"caller": "a"}}

    async def call() -> None:
        with suppress(RuntimeError):
            await layer(scope, None, None)  # type: ignore[arg-type]

    asyncio.run(call())
    assert not layer.open
