"""GET /v1/items/{id} and its image."""

from __future__ import annotations

import pytest
from support.serving import Served, World, check_error, row


def test_item(served: Served, world: World) -> None:
    body = served.client.get(f"/v1/items/{world.ids[9]}").json()
    fields = ("item_id", "language", "title", "text", "page_url", "image_url", "width", "height")
    assert body == {f: row(9)[f] for f in fields}


def test_image(served: Served, world: World) -> None:
    response = served.client.get(f"/v1/items/{world.ids[9]}/image")
    assert response.content == row(9)["image"]
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize("i", [0, 1, 2])
def test_where_the_source_has_no_url_the_image_is_ours(served: Served, world: World, i: int) -> None:
    url = served.client.get(f"/v1/items/{world.ids[i]}").json()["image_url"]
    assert url == f"/v1/items/{world.ids[i]}/image"
    assert served.client.get(url).content == row(i)["image"]


@pytest.mark.parametrize("item_id", ["abc", "0" * 24, "..%2f..%2fetc", "%00", "x" * 5_000])
def test_unknown_item(served: Served, item_id: str) -> None:
    for path in (f"/v1/items/{item_id}", f"/v1/items/{item_id}/image"):
        response = served.client.get(path)
        assert response.status_code == 404
        assert response.json()["error"]["type"] in ("unknown_item", "unknown_path")
    message = check_error(served.client.get("/v1/items/abc"), 404, "unknown_item", "item_id")
    assert "'abc'" in message


def test_an_id_with_more_behind_it_is_another(served: Served, world: World) -> None:
    check_error(served.client.get(f"/v1/items/{world.ids[9]}%00"), 404, "unknown_item", "item_id")
