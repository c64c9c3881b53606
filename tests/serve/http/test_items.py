"""The paths below /v1/items over the deployments in this process: statuses, bodies, errors."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.local_service import LocalService, on_the_cpu
from support.serving import FinishedRun, as_base64
from support.tiny import png

from comem_ray.config import Config, LiveConfig
from serve.http.api import build_api
from serve.http.keys import Keys

Http = Callable[[Callable[[httpx.AsyncClient], Awaitable[None]]], None]


@pytest.fixture
def config(run: FinishedRun, tmp_path: Path) -> Config:
    shutil.copytree(run.config.folder("items").parent, tmp_path / "run")
    return run.config.model_copy(update={"root": str(tmp_path / "run")})


def with_http(config: Config, work: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        service = LocalService(config)
        try:
            app = build_api(service.flow, config, Keys({}))
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as http:
                await work(http)
        finally:
            service.close()

    asyncio.run(main())


def item(n: int, **fields: Any) -> dict[str, Any]:
    return {"image": as_base64(png(500 + n)), "title": f"New {n}", "text": "A thing.", "language": "en", **fields}


def test_an_item_from_its_addition_to_its_deletion(
    config: Config, run: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_the_cpu(monkeypatch)

    async def work(http: httpx.AsyncClient) -> None:
        reply = await http.post("/v1/items", json={"items": [item(1), item(2, page_url="https://example.org/2")]})
        assert reply.status_code == 201, reply.text
        first, second = (i["item_id"] for i in reply.json()["items"])
        assert [i["status"] for i in reply.json()["items"]] == ["added", "added"]
        body = (await http.get(f"/v1/items/{second}")).json()
        assert (body["title"], body["live"], body["page_url"]) == ("New 2", True, "https://example.org/2")
        image = await http.get(body["image_url"])
        assert (image.headers["content-type"], image.headers["cache-control"]) == ("image/png", "private, no-cache")
        replaced = await http.put(f"/v1/items/{second}", json=item(3))
        assert (replaced.status_code, replaced.json()) == (200, {"item_id": second, "status": "replaced"})
        listed = (await http.get("/v1/items", params={"limit": 3})).json()
        assert [i["item_id"] for i in listed["items"]] == [second, first, run.ids[0]]
        assert (listed["total"], listed["next_cursor"]) == (42, "base:1")
        found = (await http.get("/v1/items", params={"search": "New 3: A thing.", "limit": 1})).json()
        assert found["items"][0]["item_id"] == second
        deleted = await http.delete(f"/v1/items/{first}")
        assert (deleted.status_code, deleted.json()) == (200, {"item_id": first, "status": "deleted"})
        check = await http.get(f"/v1/items/{first}")
        assert check.status_code == 404

    with_http(config, work)


def test_one_item_may_be_the_whole_body_and_a_key_makes_it_safe_to_repeat(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_the_cpu(monkeypatch)

    async def work(http: httpx.AsyncClient) -> None:
        headers = {"Idempotency-Key": "once"}
        replies = [await http.post("/v1/items", json=item(1), headers=headers) for _ in range(2)]
        assert [r.status_code for r in replies] == [201, 201]
        assert replies[0].json() == replies[1].json()
        assert replies[0].json()["items"][0]["status"] == "added"
        again = await http.post("/v1/items", json=item(1))
        assert again.json()["items"][0]["status"] == "unchanged"
        other = await http.post("/v1/items", json=item(2), headers=headers)
        assert (other.status_code, other.json()["error"]["type"]) == (409, "idempotency_key_reused")

    with_http(config, work)


def test_what_cannot_be_taken(config: Config, run: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_cpu(monkeypatch)
    cases: list[tuple[str, str, Any, int, str, str | None]] = [
        ("POST", "/v1/items", {"items": []}, 422, "invalid_field", "items"),
        ("POST", "/v1/items", {"items": [item(1), item(2, image="")]}, 422, "image_empty", "items.1.image"),
        ("POST", "/v1/items", {"items": [item(1, image="x!")]}, 422, "invalid_image", "items.0.image"),
        ("POST", "/v1/items", {"items": [item(1, language="english!")]}, 422, "invalid_field", "items.0.language"),
        ("POST", "/v1/items", {"items": [item(1, title=None, text=" ")]}, 422, "no_text", "items.0.text"),
        ("POST", "/v1/items", {"items": [item(1, color="red")]}, 422, "unknown_field", "items.0.color"),
        ("POST", "/v1/items", {"items": [item(1, title="x" * 5_000)]}, 422, "field_too_long", "items.0.title"),
        ("PUT", f"/v1/items/{run.ids[0]}", {"title": "no image"}, 422, "missing_field", "image"),
        ("PUT", "/v1/items/unknown", item(1), 404, "unknown_item", "item_id"),
        ("DELETE", "/v1/items/unknown", None, 404, "unknown_item", "item_id"),
        ("GET", "/v1/items?limit=0", None, 422, "invalid_field", "limit"),
        ("GET", "/v1/items?cursor=elsewhere", None, 422, "invalid_cursor", "cursor"),
    ]

    async def work(http: httpx.AsyncClient) -> None:
        for method, path, body, status, type, field in cases:
            reply = await http.request(method, path, json=body)
            error = reply.json()["error"]
            assert (reply.status_code, error["type"], error["field"]) == (status, type, field), (path, error)
        assert (await http.get("/v1/items")).json()["total"] == 40  # nothing was done

    with_http(config, work)


def test_a_knowledge_base_that_is_read_only(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_cpu(monkeypatch)

    async def work(http: httpx.AsyncClient) -> None:
        reply = await http.post("/v1/items", json=item(1))
        assert (reply.status_code, reply.json()["error"]["type"]) == (403, "read_only")
        assert (await http.get("/v1/items")).json()["total"] == 40

    with_http(config.model_copy(update={"live": LiveConfig(enabled=False)}), work)
