"""POST /v1/retrieve: by image, by text, by both."""

from __future__ import annotations

from typing import Any

import pytest
from support.serving import Library, Served, World, check_error, image_of, row
from support.tiny import image


def post(served: Served, **body: Any) -> Any:
    response = served.client.post("/v1/retrieve", json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("by", ["image", "text", "both"])
def test_equals_the_library(served: Served, library: Library, by: str) -> None:
    from comem_ray.retrieval.retriever import Query

    r = row(11)
    query_image = image(11, r["width"], r["height"])
    query = Query(query_image if by != "text" else None, r["text"] if by != "image" else None)
    want = library.retriever.retrieve([query], 5, by)[0]  # type: ignore[arg-type]
    sources = post(served, image=image_of(11), text=r["text"], by=by, top_k=5)["sources"]
    assert [s["item_id"] for s in sources] == [h.item_id for h in want]
    assert [s["score"] for s in sources] == pytest.approx([h.score for h in want], abs=1e-4)


def test_own_image_and_own_text_come_first(served: Served, world: World) -> None:
    assert post(served, image=image_of(11))["sources"][0]["item_id"] == world.ids[11]
    assert post(served, text=row(11)["text"])["sources"][0]["item_id"] == world.ids[11]


def test_what_is_given_is_what_is_compared(served: Served) -> None:
    both = post(served, image=image_of(11), text="other", top_k=4)["sources"]
    assert both == post(served, image=image_of(11), text="other", by="both", top_k=4)["sources"]
    assert (
        post(served, image=image_of(11), top_k=4)["sources"]
        == post(served, image=image_of(11), by="image", top_k=4)["sources"]
    )


def test_text_weight(served: Served) -> None:
    fields = {"image": image_of(11), "text": row(20)["text"], "by": "both", "top_k": 1}
    image_only = post(served, **fields, text_weight=0.0)["sources"][0]["item_id"]
    text_only = post(served, **fields, text_weight=1.0)["sources"][0]["item_id"]
    assert image_only == row(11)["item_id"]
    assert text_only == row(20)["item_id"]


def test_language_and_timings(served: Served) -> None:
    body = post(served, image=image_of(11), language="de", top_k=20)
    assert all(int(s["title"].split()[1]) % 3 == 1 for s in body["sources"])
    assert len(body["sources"]) == 13  # of the 40 items those that are German
    assert body["timings_ms"].keys() == {"retrieve", "items", "total"}


@pytest.mark.parametrize(
    ("body", "type", "field"),
    [
        ({}, "missing_field", "image"),
        ({"by": "image", "text": "a"}, "missing_field", "image"),
        ({"by": "both", "text": "a"}, "missing_field", "image"),
        ({"by": "text", "image": image_of(1)}, "missing_field", "text"),
        ({"text": ""}, "empty_text", "text"),
        ({"text": "a", "by": "smell"}, "invalid_field", "by"),
        ({"text": "a", "text_weight": 1.5}, "invalid_field", "text_weight"),
        ({"text": "a", "top_k": 21}, "invalid_field", "top_k"),
        ({"text": "a", "question": "b"}, "unknown_field", "question"),
    ],
)
def test_wrong_search(served: Served, body: dict[str, Any], type: str, field: str) -> None:
    check_error(served.client.post("/v1/retrieve", json=body), 422, type, field)
