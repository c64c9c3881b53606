"""OpenAI's API over real HTTP: with OpenAI's own client, unmodified, and raw where the client hides something."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from support.chat_flow import PIECES, SOURCE, RecordingFlow, serving_chat
from support.serving import as_base64
from support.tiny import png

from comem_ray.config import Config
from serve.http.errors import ApiError

URI = f"data:image/png;base64,{as_base64(png(1))}"
ASK: list[Any] = [{"role": "user", "content": "Which city?"}]
ASK_IMAGE: list[Any] = [
    {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": URI, "detail": "low"}},
            {"type": "text", "text": "Which city?"},
        ],
    }
]
TEXT = "".join(PIECES)


@pytest.fixture(scope="module")
def config(make_config: Any) -> Config:
    limits = {"max_images": 2, "max_question_chars": 500, "max_chat_chars": 1_000, "max_new_tokens": 400}
    config: Config = make_config(api=limits)
    return config


@pytest.fixture
def flow() -> RecordingFlow:
    return RecordingFlow()


@pytest.fixture
def url(config: Config, flow: RecordingFlow) -> Iterator[str]:
    with serving_chat(config, flow) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_an_answer(client: openai.OpenAI, flow: RecordingFlow) -> None:
    completion = client.chat.completions.create(model="tiny", messages=ASK_IMAGE)
    assert completion.object == "chat.completion"
    assert completion.id.startswith("chatcmpl-")
    (choice,) = completion.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", TEXT, "stop")
    assert completion.usage is not None
    assert completion.usage.model_dump(include={"prompt_tokens", "completion_tokens", "total_tokens"}) == {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "total_tokens": 14,
    }
    ((question, caller),) = flow.questions
    assert (question.question, question.images, question.mode) == ("Which city?", [png(1)], "memory")
    assert caller == "address:127.0.0.1"


def test_sources_are_in_the_extension_and_in_the_annotations(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="tiny", messages=ASK_IMAGE)
    comem = completion.model_extra["comem"]  # type: ignore[index]
    assert (comem["mode"], comem["sources"]) == ("memory", [SOURCE])
    assert comem["timings_ms"]["total"] == 6
    (annotation,) = completion.choices[0].message.annotations or []
    citation = annotation.url_citation
    assert (citation.title, citation.url) == ("Bulgaria", f"/v1/items/{'a' * 24}")
    assert (citation.start_index, citation.end_index) == (0, len(TEXT))


def test_the_extension_chooses_what_is_retrieved(client: openai.OpenAI, flow: RecordingFlow) -> None:
    comem = {"mode": "rag", "top_k": 2, "language": "pt_br"}
    client.chat.completions.create(model="tiny", messages=ASK_IMAGE, extra_body={"comem": comem})
    assert (flow.question.mode, flow.question.top_k, flow.question.language) == ("rag", 2, "pt-BR")


def test_a_chat_without_an_image_says_that_nothing_was_retrieved(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="tiny", messages=ASK)
    assert completion.model_extra["comem"]["mode"] == "none"  # type: ignore[index]
    assert completion.choices[0].message.annotations == []


def test_an_answer_may_be_handed_back_as_the_client_has_it(client: openai.OpenAI, flow: RecordingFlow) -> None:
    first = client.chat.completions.create(model="tiny", messages=ASK_IMAGE).choices[0].message
    for earlier in (first, first.model_dump()):
        messages: list[Any] = [*ASK_IMAGE, earlier, {"role": "user", "content": "And its river?"}]
        client.chat.completions.create(model="tiny", messages=messages)
        assert flow.question.question == "And its river?"
        assert [(turn.role, turn.text, len(turn.images)) for turn in flow.question.history] == [
            ("user", "Which city?", 1),
            ("assistant", TEXT, 0),
        ]


def test_a_stream(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="tiny", messages=ASK_IMAGE, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == TEXT
    assert len({c.id for c in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    first, last = (c.model_extra["comem"] for c in (chunks[0], chunks[-1]))  # type: ignore[index]
    assert (first["mode"], first["sources"]) == ("memory", [SOURCE])
    assert last["timings_ms"]["total"] == 6
    assert last["mode"] == "memory"
    assert all(c.usage is None for c in chunks)


def test_a_stream_with_usage(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="tiny", messages=ASK, stream=True, stream_options=options))
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 14
    assert all(c.usage is None for c in chunks[:-1])


def test_the_lines_of_a_stream(url: str) -> None:
    body = {"model": "tiny", "messages": ASK, "stream": True}
    response = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    assert response.text.isascii()
    assert {json.loads(e.removeprefix("data: "))["object"] for e in events} == {"chat.completion.chunk"}


def test_an_error_before_the_first_text_of_a_stream_has_its_status(url: str, flow: RecordingFlow) -> None:
    error = {"type": "overloaded", "message": "no room", "field": None}
    flow.events = [("sources", {"sources": []}), ("error", {"error": error, "status": 429, "retry_after": 7})]
    response = httpx.post(f"{url}/v1/chat/completions", json={"model": "tiny", "messages": ASK, "stream": True})
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    assert response.json()["error"]["message"] == "no room"
    flow.events = flow.events[1:]
    response = httpx.post(f"{url}/v1/chat/completions", json={"model": "tiny", "messages": ASK, "stream": True})
    assert response.status_code == 429


@pytest.mark.parametrize("text", [[], [("token", {"text": "So"})]])
def test_an_error_within_a_stream_ends_it(client: openai.OpenAI, flow: RecordingFlow, text: list[Any]) -> None:
    error = {"type": "prompt_too_long", "message": "ask less", "field": "question"}
    flow.events = [("sources", {"sources": []}), *text, ("error", {"error": error})]
    stream = client.chat.completions.create(model="tiny", messages=ASK, stream=True)
    for content in ["", *(data["text"] for _, data in text)]:
        assert next(stream).choices[0].delta.content == content
    with pytest.raises(openai.APIError, match="ask less") as raised:
        next(stream)
    assert (raised.value.type, raised.value.code) == ("prompt_too_long", "context_length_exceeded")


def test_who_leaves_a_stream_ends_the_answer(client: openai.OpenAI, flow: RecordingFlow) -> None:
    flow.hold = True
    with client.chat.completions.create(model="tiny", messages=ASK, stream=True) as stream:
        next(stream)
    assert flow.closed.wait(10)


def test_a_fault_of_the_request_is_a_bad_request_with_a_sentence(client: openai.OpenAI, flow: RecordingFlow) -> None:
    tools: Any = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(openai.BadRequestError, match="this service calls no tools") as raised:
        client.chat.completions.create(model="tiny", messages=ASK, tools=tools)
    error = raised.value
    assert (error.status_code, error.type, error.param) == (400, "unsupported_field", "tools")
    remote: Any = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}]}
    with pytest.raises(openai.BadRequestError, match="this is a URL, send the image itself") as raised:
        client.chat.completions.create(model="tiny", messages=[*ASK, remote, *ASK])
    assert (raised.value.type, raised.value.param) == ("invalid_image", "messages.1.content.0.image_url.url")
    assert flow.questions == []


def test_an_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4o': want 'tiny'") as raised:
        client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


def test_a_refusal_of_the_flow_keeps_its_words(client: openai.OpenAI, flow: RecordingFlow) -> None:
    flow.error = ApiError(422, "nothing_to_search", "no item in 'fr'", "language")
    with pytest.raises(openai.BadRequestError, match="no item in 'fr'"):
        client.chat.completions.create(model="tiny", messages=ASK)
    flow.error = ApiError(503, "restarting", "the reasoner is being restarted", None, {"Retry-After": "5"})
    with pytest.raises(openai.InternalServerError, match="being restarted") as raised:
        client.chat.completions.create(model="tiny", messages=ASK)
    assert (raised.value.status_code, raised.value.response.headers["retry-after"]) == (503, "5")


def test_a_fault_of_ours_shows_nothing(client: openai.OpenAI, flow: RecordingFlow) -> None:
    flow.error = FileNotFoundError("/secret/place")
    with pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(model="tiny", messages=ASK)
    assert raised.value.type == "internal"
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "type", "param"),
    [
        (b"{", "invalid_json", None),
        (b"[]", "invalid_body", None),
        (b"", "missing_body", None),
        (b'{"messages": []}', "missing_field", "model"),
        (b'{"model": "tiny", "messages": []}', "invalid_field", "messages"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "k": 1}', "unknown_field", "k"),
    ],
)
def test_every_error_has_one_shape(url: str, content: bytes, type: str, param: str | None) -> None:
    headers = {"Content-Type": "application/json"}
    response = httpx.post(f"{url}/v1/chat/completions", content=content, headers=headers)
    error = response.json()["error"]
    assert error.keys() == {"type", "message", "field", "param", "code"}
    assert (response.status_code, error["type"], error["param"], error["field"]) == (400, type, param, param)


@pytest.mark.parametrize(
    "field", [b'"\\ud800": 1', b'"messages": [{"role": "user", "content": "\\ud800"}]', b'"user": "\\ud800"']
)
def test_half_a_surrogate_pair_is_no_fault_of_ours(url: str, field: bytes) -> None:
    content = b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], ' + field + b"}"
    headers = {"Content-Type": "application/json"}
    assert httpx.post(f"{url}/v1/chat/completions", content=content, headers=headers).status_code in (200, 400)


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert (model.id, model.owned_by) == ("tiny", "comem-ray")
    assert client.models.retrieve("tiny") == model
    with pytest.raises(openai.NotFoundError, match="want 'tiny'"):
        client.models.retrieve("some/other")


def test_images_of_https_urls_are_fetched_where_that_is_allowed(config: Config, flow: RecordingFlow) -> None:
    async def fetch(url: str) -> bytes:
        if "private" in url:
            raise ApiError(422, "image_url_refused", "this host is not in api.fetch_hosts", "image")
        return png(2)

    def ask(url: str) -> list[Any]:
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Which city?"}]
        return [{"role": "user", "content": parts}]

    with serving_chat(config, flow, fetch) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        client.chat.completions.create(model="tiny", messages=ask("https://example.org/a.png"))
        assert flow.question.images == [png(2)]
        with pytest.raises(openai.BadRequestError, match="not in api") as raised:
            client.chat.completions.create(model="tiny", messages=ask("https://private.example.org/a.png"))
    assert raised.value.param == "messages.0.content.0.image_url.url"
