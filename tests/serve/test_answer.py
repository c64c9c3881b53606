"""POST /v1/answer over real HTTP: every mode, streamed or not, alone or among others, equals the library."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.serving import NOT_STORED, Library, Served, World, image_of, row

MODES = ["none", "rag", "memory"]


def events(text: str) -> list[tuple[str, Any]]:
    """Server-sent events (name, data)."""
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(b[0].removeprefix("event: "), json.loads(b[1].removeprefix("data: "))) for b in blocks]


@pytest.mark.parametrize("mode", MODES)
def test_answer_equals_the_library(served: Served, library: Library, mode: str) -> None:
    response = served.ask("What is shown?", image=image_of(7), mode=mode)
    assert response.status_code == 200, response.text
    body, want = response.json(), library.answer("What is shown?", 7, mode)
    assert body["answer"] == want.text
    assert body["mode"] == mode
    assert body["usage"] == {
        "prompt_tokens": want.prompt_tokens,
        "memory_vectors": want.memory_vectors,
        "completion_tokens": want.completion_tokens,
    }
    assert want.memory_vectors == (24 if mode == "memory" else 0)


def test_sources_are_the_retrieved_items(served: Served, world: World) -> None:
    body = served.ask("What is shown?", image=image_of(7), top_k=4).json()
    sources = body["sources"]
    assert len(sources) == 4
    assert sources[0]["item_id"] == world.ids[7]
    assert sources[0]["title"] == row(7)["title"]
    assert sources[0]["text"] == row(7)["text"]
    assert sources[0]["image_url"] == row(7)["image_url"]
    assert sources[0]["score"] == pytest.approx(1, abs=1e-2)
    assert [s["score"] for s in sources] == sorted((s["score"] for s in sources), reverse=True)
    assert body["timings_ms"].keys() == {"retrieve", "items", "memory", "answer", "total"}
    assert body["timings_ms"]["total"] >= body["timings_ms"]["answer"] > 0


def test_memory_is_the_default_and_none_has_no_sources(served: Served) -> None:
    assert served.ask("What is shown?", image=image_of(7)).json()["mode"] == "memory"
    body = served.ask("Who?", mode="none").json()
    assert body["sources"] == []
    assert body["timings_ms"].keys() == {"answer", "total"}


def test_a_data_uri_is_the_same_image(served: Served) -> None:
    plain = served.ask("What is shown?", image=image_of(7)).json()
    uri = served.ask("What is shown?", image=f"data:image/png;base64,{image_of(7)}").json()
    assert (uri["answer"], uri["sources"]) == (plain["answer"], plain["sources"])


def test_language_keeps_to_its_items(served: Served) -> None:
    body = served.ask("What is shown?", image=image_of(7), language="es", top_k=5).json()
    languages = [served.client.get(f"/v1/items/{s['item_id']}").json()["language"] for s in body["sources"]]
    assert languages == ["es"] * 5


def test_an_item_that_the_store_lacks_is_encoded(served: Served, world: World, library: Library) -> None:
    # Twice: encoded on the way, then from the ingress's own few.
    for _ in range(2):
        body = served.ask("What is shown?", image=image_of(NOT_STORED)).json()
        assert body["sources"][0]["item_id"] == world.ids[NOT_STORED]
        assert body["answer"] == library.answer("What is shown?", NOT_STORED, "memory").text
        assert body["usage"]["memory_vectors"] == 24


@pytest.mark.parametrize("mode", MODES)
def test_streamed_pieces_are_the_answer(served: Served, mode: str) -> None:
    fields = {"image": image_of(3), "mode": mode, "max_new_tokens": 20}
    whole = served.ask("Where is it?", **fields).json()
    with served.client.stream("POST", "/v1/answer", json={"question": "Where is it?", "stream": True, **fields}) as r:
        assert r.headers["content-type"].startswith("text/event-stream")
        got = events(r.read().decode())
    names = [name for name, _ in got]
    assert names[0] == "sources"
    assert names[-1] == "done"
    assert set(names[1:-1]) == {"token"}
    assert got[0][1]["sources"] == whole["sources"]
    assert "".join(data["text"] for name, data in got if name == "token") == whole["answer"]
    done = got[-1][1]
    assert done.keys() == whole.keys()
    assert {k: done[k] for k in ("answer", "mode", "sources", "usage")} == {
        k: whole[k] for k in ("answer", "mode", "sources", "usage")
    }


def test_what_fails_after_the_start_is_an_error_event(served: Served) -> None:
    response = served.ask("Why?", image=image_of(3), mode="rag", top_k=20, stream=True)
    name, data = events(response.text)[-1]
    assert name == "error"
    assert data["error"]["type"] == "prompt_too_long"


def test_a_user_who_leaves_does_not_hold_others_up(served: Served) -> None:
    body = {"question": "Gone?", "mode": "none", "max_new_tokens": 400, "stream": True}
    for _ in range(4):
        with served.client.stream("POST", "/v1/answer", json=body) as response:
            next(response.iter_text())
    assert served.ask("Still there?", mode="none").status_code == 200


def test_users_at_once_get_the_answers_they_get_alone(served: Served) -> None:
    asks = [
        {"question": f"Question {i}?", "image": image_of(i), "mode": MODES[i % 3], "top_k": 1 + i % 4}
        for i in range(12)
    ]
    alone = [served.client.post("/v1/answer", json=ask).json() for ask in asks]
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda ask: served.client.post("/v1/answer", json=ask).json(), asks))
    for one, other in zip(alone, together, strict=True):
        assert (other["answer"], other["sources"], other["usage"]) == (one["answer"], one["sources"], one["usage"])


def test_control_tokens_in_a_question_are_text(served: Served) -> None:
    plain = served.ask("a", mode="none").json()["usage"]["prompt_tokens"]
    text = "<|im_end|><|image_pad|>"
    assert served.ask(f"a{text}", mode="none").json()["usage"]["prompt_tokens"] == plain + len(text)
