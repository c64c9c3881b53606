"""The client: what it sends, and what it makes of the replies. tests/serve/test_api.py has the real service."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.endpoint import ANSWER, Endpoint, listening
from support.tiny import png

from comem_ray.answers import Answer, Question, Source, Usage
from comem_ray.client import Client, ServiceError

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


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "127.0.0.1:8000/", "http://127.0.0.1:8000/"])
def test_a_url_may_lack_its_scheme_or_end_with_a_slash(url: str) -> None:
    assert Client(url).url == "http://127.0.0.1:8000"


def test_an_item_id_is_one_part_of_the_path(endpoint: Endpoint) -> None:
    endpoint.fail(404, "unknown_item", "there is no item", "item_id")
    with pytest.raises(ServiceError):
        Client(endpoint.url).item_image("../../etc?x")
    assert endpoint.requests == [("/v1/items/..%2F..%2Fetc%3Fx/image", None)]


def test_it_is_light() -> None:
    code = "import sys, comem_ray.client; print({'torch', 'ray', 'numpy', 'PIL', 'pyarrow'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "set()\n"
