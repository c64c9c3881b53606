"""The objects of an answer: as OpenAI's own types have them, with ours beside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from support.chat_flow import PIECES, SOURCE, RecordingFlow

from serve.http.chat_replies import (
    ChatAnswer,
    ChatErrorReply,
    ChatReply,
    ModelBody,
    chat_refusal,
    citations,
    model_body,
    sse,
)
from serve.http.errors import ApiError, openai_error
from serve.messages import QuestionRequest

QUESTION = QuestionRequest("Which city?", [], "memory", None, None, None)


def chunks(flow: RecordingFlow, include_usage: bool = False) -> list[dict[str, Any]]:
    async def collect() -> list[dict[str, Any]]:
        return [c async for c in ChatAnswer("tiny", "memory").chunks(flow.stream(QUESTION), include_usage)]

    return asyncio.run(collect())


def lines(*chunks: dict[str, Any]) -> list[str]:
    async def each() -> AsyncIterator[dict[str, Any]]:
        for chunk in chunks:
            yield chunk

    async def collect() -> list[str]:
        return [line async for line in sse(each())]

    return asyncio.run(collect())


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_completion_is_one_of_openais_and_as_documented(reason: str) -> None:
    body = ChatAnswer("tiny", "memory").completion(RecordingFlow(finish_reason=reason).body(QUESTION))
    completion = ChatCompletion.model_validate(body, strict=True)
    assert completion.choices[0].finish_reason == reason
    assert ChatReply.model_validate(body).model_dump() == body
    assert body["usage"]["memory_vectors"] == 8


def test_chunks_are_openais_and_add_up_to_the_completion() -> None:
    parts = chunks(RecordingFlow(), include_usage=True)
    typed = [ChatCompletionChunk.model_validate(part, strict=True) for part in parts]
    assert "".join(c.choices[0].delta.content or "" for c in typed[:-1]) == "".join(PIECES)
    whole = ChatAnswer("tiny", "memory").completion(RecordingFlow().body(QUESTION))
    assert parts[-1]["usage"] == whole["usage"]
    assert parts[-2]["choices"][0]["delta"]["annotations"] == whole["choices"][0]["message"]["annotations"]
    assert {**parts[0]["comem"], **parts[-2]["comem"]} == whole["comem"]
    assert all("comem" not in part for part in parts[1:-2])


def test_a_source_is_cited_by_its_page_if_it_has_one() -> None:
    reply = {"answer": "Sofia", "sources": [SOURCE, {**SOURCE, "page_url": "https://example.org/bg"}]}
    urls = [c["url_citation"]["url"] for c in citations(reply)]
    assert urls == [f"/v1/items/{'a' * 24}", "https://example.org/bg"]


def test_the_error_of_a_stream_is_its_end() -> None:
    error = {"type": "not_finite", "message": "a sentence", "field": None}
    parts = chunks(RecordingFlow(events=[("error", {"error": error}), ("token", {"text": "never"})]))
    assert parts == [{"error": {**error, "param": None, "code": "not_finite"}}]
    assert "data: [DONE]\n\n" not in lines(*parts)
    assert lines({"a": "\u2028"}) == ['data: {"a": "\\u2028"}\n\n', "data: [DONE]\n\n"]


@pytest.mark.parametrize(("status", "expected"), [(422, 400), (400, 400), (404, 404), (429, 429), (503, 503)])
def test_a_fault_of_the_request_is_a_400(status: int, expected: int) -> None:
    refusal = chat_refusal(ApiError(status, "unknown_field", "a sentence", "x", {"Retry-After": "3"}))
    assert (refusal.status_code, refusal.headers) == (expected, {"Retry-After": "3"})
    body = {"error": openai_error(refusal.body()["error"])}
    assert ChatErrorReply.model_validate(body).model_dump() == body
    assert (body["error"]["code"], body["error"]["param"]) == ("unknown_parameter", "x")


def test_a_model_is_as_documented() -> None:
    body = model_body("tiny", 1)
    assert ModelBody.model_validate(body).model_dump() == body
