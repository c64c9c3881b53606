"""The client: what it sends, and what it makes of the replies. tests/serve/test_api.py has the real service."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.endpoint import ANSWER, Endpoint, listening
from support.tiny import png

from comem_ray.answers import Answer, Question, Source, Usage
from comem_ray.client import Client, ItemChange, ItemPage, KnowledgeItem, NewItem, ServiceError

WHOLE = Answer(
    text="Sofia",
    mode="memory",
    sources=[Source("a" * 24, "Bulgaria", "...", 0.9, "/image")],
    usage=Usage(prompt_tokens=10, memory_vectors=8, completion_tokens=2),
    timings_ms={"retrieve": 2.0, "answer": 3.0, "total": 6.0},
)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with listening() as endpoint:
        yield endpoint


ITEM = {
    "item_id": "b" * 24,
    "language": "en",
    "title": "Sofia",
    "text": "A city.",
    "page_url": None,
    "image_url": "/v1/items/b/image",
    "width": 8,
    "height": 6,
}


def events(*pairs: tuple[str, object]) -> bytes:
    return "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in pairs).encode()


def test_an_answer_and_what_was_asked(endpoint: Endpoint) -> None:
    assert Client(endpoint.url).answer("Which city?", png(1), "rag", k=2, language="en", max_new_tokens=9) == WHOLE
    body = {"question": "Which city?", "image": base64.b64encode(png(1)).decode(), "mode": "rag", "top_k": 2}
    assert endpoint.requests == [("/v1/answer", {**body, "language": "en", "max_new_tokens": 9})]


def test_what_is_not_given_is_not_sent(endpoint: Endpoint) -> None:
    Client(endpoint.url).answer("Which city?")
    assert endpoint.requests == [("/v1/answer", {"question": "Which city?", "mode": "memory"})]


def test_a_batch_is_answered_in_its_order(endpoint: Endpoint) -> None:
    questions = [Question(f"Question {i}?", mode="none") for i in range(20)]
    assert Client(endpoint.url).answer_batch(questions) == [WHOLE] * 20
    assert sorted(body["question"] for _, body in endpoint.requests) == sorted(q.text for q in questions)


def test_a_stream_is_the_pieces_and_then_the_answer(endpoint: Endpoint) -> None:
    tokens = [("token", {"text": text}) for text in ("So", "\n", "fia")]
    endpoint.body = events(("sources", {"sources": []}), *tokens, ("done", ANSWER))
    stream = Client(endpoint.url).stream("Which city?")
    with pytest.raises(RuntimeError, match="not there yet"):
        _ = stream.answer
    assert list(stream) == ["So", "\n", "fia"]
    assert stream.answer == WHOLE


def test_a_stream_that_fails_or_ends_early_says_so(endpoint: Endpoint) -> None:
    error = {"type": "prompt_too_long", "message": "ask less", "field": "question"}
    endpoint.body = events(("token", {"text": "So"}), ("error", {"error": error}))
    stream = Client(endpoint.url).stream("Which city?")
    assert next(stream) == "So"
    with pytest.raises(ServiceError, match="prompt_too_long: ask less"):
        next(stream)
    endpoint.body = events(("token", {"text": "So"}))
    with pytest.raises(ServiceError, match="ended the answer before it was whole"):
        list(Client(endpoint.url).stream("Which city?"))


def test_a_refusal_has_status_code_message_and_field(endpoint: Endpoint) -> None:
    endpoint.fail(422, "empty_text", "question is empty: write one", "question")
    for call in (lambda c: c.answer(""), lambda c: list(c.stream("")), lambda c: c.answer_batch([Question("")])):
        with pytest.raises(ServiceError) as raised:
            call(Client(endpoint.url))
        error = raised.value
        assert (error.status, error.type, error.field) == (422, "empty_text", "question")
        assert error.message == "question is empty: write one"


def test_an_error_of_another_server_is_shown_as_it_is(endpoint: Endpoint) -> None:
    endpoint.status, endpoint.body = 502, b"<h1>Bad gateway</h1>"
    with pytest.raises(ServiceError, match="502 http_error: <h1>Bad gateway</h1>"):
        Client(endpoint.url).item("a" * 24)
    assert not Client(endpoint.url).ready()


def test_a_reply_of_another_server_is_a_sentence(endpoint: Endpoint) -> None:
    client = Client(endpoint.url)
    for body in (b"<h1>It works!</h1>", b"[]", b"", b"{}", b'{"answer": 1}', b"\xff"):
        endpoint.body = body
        assert not client.ready()
        for call in (
            lambda: client.answer("x"),
            client.items,
            lambda: client.item("a"),
            lambda: client.retrieve(text="x"),
        ):
            with pytest.raises(ServiceError, match="is not this service"):
                call()
    endpoint.body = events(("token", {"words": "So"}))
    with pytest.raises(ServiceError, match="is not this service"):
        list(client.stream("x"))
    endpoint.body = b"event: token\ndata: {\n\n"
    with pytest.raises(ServiceError, match="is not this service"):
        list(client.stream("x"))


def test_characters_that_end_lines_elsewhere_are_text(endpoint: Endpoint) -> None:
    pieces = ["a\u2028b", "c\x85d", "e\x0bf\x1cg"]
    tokens = [("token", {"text": piece}) for piece in pieces]
    lines = events(*tokens, ("done", ANSWER)).decode()
    endpoint.body = lines.replace("\\u2028", "\u2028").replace("\\u0085", "\x85").encode()
    assert "\u2028" in endpoint.body.decode()
    assert list(Client(endpoint.url).stream("x")) == pieces


def test_fields_of_a_later_version_are_left_out(endpoint: Endpoint) -> None:
    sources = [{**ANSWER["sources"][0], "license": "CC0"}]  # type: ignore[index]
    endpoint.answer({**ANSWER, "finish_reason": "stop", "sources": sources, "usage": {**ANSWER["usage"], "new": 1}})  # type: ignore[dict-item]
    assert Client(endpoint.url).answer("Which city?") == WHOLE


def test_a_key_is_sent_as_a_bearer_token(endpoint: Endpoint) -> None:
    Client(endpoint.url, api_key=" secret-1\n").answer("Which city?")
    Client(endpoint.url).answer("Which city?")
    assert [headers["Authorization"] for headers in endpoint.received] == ["Bearer secret-1", None]


@pytest.mark.parametrize("key", ["two words", "ключ", "a\r\nX-Other: 1"])
def test_a_key_that_no_header_can_carry(key: str) -> None:
    with pytest.raises(ValueError, match="the API key holds a space or a character beyond ASCII") as raised:
        Client(api_key=key)
    assert key not in str(raised.value)


def test_a_page_of_items(endpoint: Endpoint) -> None:
    endpoint.answer({"items": [{**ITEM, "live": True, "score": 0.5}, ITEM], "next_cursor": "c2", "total": 7})
    client = Client(endpoint.url)
    assert client.items(limit=2, cursor="c1", search="a city", language="en") == ItemPage(
        [KnowledgeItem(**ITEM, live=True, score=0.5), KnowledgeItem(**ITEM)],  # type: ignore[arg-type]
        "c2",
        7,
    )
    client.items()
    paths = [path for path, _ in endpoint.requests]
    assert paths == ["/v1/items?limit=2&cursor=c1&search=a+city&language=en", "/v1/items?limit=20"]


def test_items_are_added(endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(2))
    endpoint.answer({"items": [{"item_id": "a", "status": "added"}, {"item_id": "b", "status": "unchanged"}]})
    client = Client(endpoint.url)
    new = [NewItem(png(1), "Sofia", "A city.", "bg", "https://example.org"), NewItem(tmp_path / "a.png", "B", "C")]
    assert client.add_items(new, idempotency_key="once") == ["a", "b"]
    first, second = (base64.b64encode(png(n)).decode() for n in (1, 2))
    body = {"title": "Sofia", "text": "A city.", "image": first, "language": "bg", "page_url": "https://example.org"}
    items = [body, {"title": "B", "text": "C", "image": second}]
    assert endpoint.requests == [("/v1/items", {"items": items})]
    assert endpoint.received[0]["Idempotency-Key"] == "once"


def test_an_add_has_a_key_of_its_own_and_keeps_it_when_tried_again(endpoint: Endpoint) -> None:
    endpoint.answer({"items": []})
    endpoint.full = 1
    client = Client(endpoint.url, retries=1)
    client.add_items([])
    client.add_items([])
    first, again, other = (headers["Idempotency-Key"] for headers in endpoint.received)
    assert first == again != other


def test_items_are_replaced_and_deleted(endpoint: Endpoint) -> None:
    client = Client(endpoint.url)
    endpoint.answer({"item_id": "a", "status": "replaced"})
    assert client.replace_item("a/b", NewItem(png(1), "Sofia", "A city.")) == ItemChange("a", "replaced")
    endpoint.answer({"item_id": "a", "status": "deleted"})
    assert client.delete_item("a") == ItemChange("a", "deleted")
    assert endpoint.methods == ["PUT", "DELETE"]
    assert [path for path, _ in endpoint.requests] == ["/v1/items/a%2Fb", "/v1/items/a"]


def test_a_full_service_is_asked_again_only_if_that_is_wanted(endpoint: Endpoint) -> None:
    for client, full, requests in ((Client(endpoint.url), 1, 1), (Client(endpoint.url, retries=2), 3, 3)):
        endpoint.requests.clear()
        endpoint.full = full
        with pytest.raises(ServiceError, match="no room") as raised:
            client.answer("Which city?")
        assert (raised.value.status, raised.value.retry_after_s) == (429, 0)
        assert len(endpoint.requests) == requests
    endpoint.full = 2
    assert Client(endpoint.url, retries=2).answer("Which city?") == WHOLE
    endpoint.full = 1
    endpoint.body = events(("token", {"text": "Sofia"}), ("done", ANSWER))
    assert list(Client(endpoint.url, retries=1).stream("Which city?")) == ["Sofia"]


@pytest.mark.parametrize("retry_after", [None, "3600", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_nobody_waits_without_an_end(endpoint: Endpoint, retry_after: str | None) -> None:
    endpoint.full, endpoint.retry_after = 1, retry_after
    with pytest.raises(ServiceError, match="no room"):
        Client(endpoint.url, retries=5).answer("Which city?")
    assert len(endpoint.requests) == 1


def test_the_wait_is_the_services(endpoint: Endpoint) -> None:
    endpoint.full, endpoint.retry_after = 1, "1"
    start = time.monotonic()
    Client(endpoint.url, retries=1).answer("Which city?")
    assert time.monotonic() - start >= 1


def test_nobody_there_is_a_sentence() -> None:
    client = Client("127.0.0.1:9")
    assert not client.ready()
    with pytest.raises(ServiceError, match=r"no answer from http://127\.0\.0\.1:9 .*is the service running") as raised:
        client.answer("Which city?")
    assert (raised.value.status, raised.value.type) == (0, "unreachable")


def test_no_reply_in_time_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)
        with pytest.raises(ServiceError, match=r"within 0\.2 s") as raised:
            client.answer("Which city?")
    assert raised.value.type == "timeout"


def test_an_item_id_is_one_part_of_the_path(endpoint: Endpoint) -> None:
    endpoint.fail(404, "unknown_item", "there is no item", "item_id")
    with pytest.raises(ServiceError):
        Client(endpoint.url).item_image("../../etc?x")
    assert endpoint.requests == [("/v1/items/..%2F..%2Fetc%3Fx/image", None)]


def test_it_is_light() -> None:
    code = "import sys, comem_ray.client; print({'torch', 'ray', 'numpy', 'PIL', 'pyarrow'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "set()\n"
