"""The answer of a Flow in the shapes of OpenAI's API: completion, chunks of a stream, models, errors.

Beyond OpenAI's: the field `comem` (mode, sources, milliseconds per stage), and `memory_vectors` in the usage.
Source: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, Field

from comem_ray.prompts import Mode
from serve.http.bodies import ErrorBody, SourceBody, Timings, UsageBody
from serve.http.errors import ApiError, openai_error

OWNER = "comem-ray"

Json = dict[str, Any]


class UrlCitation(BaseModel):
    title: str
    url: str = Field(description="the item's page, else its path in this API")
    start_index: int = Field(description="first character of the answer that it is about: 0, for sources are of it all")
    end_index: int


class Annotation(BaseModel):
    type: Literal["url_citation"]
    url_citation: UrlCitation


class AssistantMessage(BaseModel):
    role: Literal["assistant"]
    content: str
    refusal: None
    annotations: list[Annotation] = Field(description="one per source, best first")


class ChatChoice(BaseModel):
    index: int
    message: AssistantMessage
    logprobs: None
    finish_reason: Literal["stop", "length"]


class ChatUsage(UsageBody):
    total_tokens: int = Field(description="prompt_tokens and completion_tokens; memory_vectors are counted apart")


class RetrievalReply(BaseModel):
    mode: Mode
    sources: list[SourceBody]
    timings_ms: Timings


class ChatReply(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int = Field(description="seconds since 1970")
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    comem: RetrievalReply


class ModelBody(BaseModel):
    id: str = Field(description="the configuration's name")
    object: Literal["model"]
    created: int = Field(description="seconds since 1970: when the service started")
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelBody]


class ChatErrorBody(ErrorBody):
    param: str | None = Field(None, description="`field` under OpenAI's name")
    code: str = Field(description="`type`, or OpenAI's word for it")


class ChatErrorReply(BaseModel):
    error: ChatErrorBody


class ChatAnswer:
    """The objects of one answer, which share id, time and model."""

    def __init__(self, model: str, mode: Mode):
        self.mode = mode
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def completion(self, reply: Mapping[str, Any]) -> Json:
        """The chat.completion of a Flow's answer."""
        message = {"role": "assistant", "content": reply["answer"], "refusal": None, "annotations": citations(reply)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply["finish_reason"]}
        comem = {name: reply[name] for name in ("mode", "sources", "timings_ms")}
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": usage(reply), "comem": comem}

    async def chunks(self, events: AsyncIterator[tuple[str, Json]], include_usage: bool) -> AsyncIterator[Json]:
        """The chat.completion.chunks of a Flow's events; for the event error, an error, which is the last."""
        more = {"usage": None} if include_usage else {}
        async for name, data in events:
            if name == "sources":
                comem = {"mode": self.mode, "sources": data["sources"]}
                yield self._chunk({"role": "assistant", "content": ""}, **more, comem=comem)
            elif name == "token":
                yield self._chunk({"content": data["text"]}, **more)
            elif name == "error":
                yield {"error": openai_error(data["error"])}
                return
            else:
                comem = {"mode": self.mode, "timings_ms": data["timings_ms"]}
                yield self._chunk({"annotations": citations(data)}, data["finish_reason"], **more, comem=comem)
                if include_usage:
                    yield {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": usage(data)}

    def _chunk(self, delta: Json, finish_reason: str | None = None, **fields: Any) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice], **fields}


def citations(reply: Mapping[str, Any]) -> list[Json]:
    """One url_citation per source, each of the whole answer."""
    span = {"start_index": 0, "end_index": len(reply["answer"])}
    return [
        {"type": "url_citation", "url_citation": {"title": s["title"], "url": _page(s), **span}}
        for s in reply["sources"]
    ]


def _page(source: Mapping[str, Any]) -> str:
    return source.get("page_url") or f"/v1/items/{quote(source['item_id'])}"


def usage(reply: Mapping[str, Any]) -> Json:
    tokens = reply["usage"]
    return {**tokens, "total_tokens": tokens["prompt_tokens"] + tokens["completion_tokens"]}


def model_body(name: str, created: int) -> Json:
    return {"id": name, "object": "model", "created": created, "owned_by": OWNER}


def chat_refusal(error: ApiError) -> ApiError:
    """The error with OpenAI's status: 400 for whatever is wrong with a field."""
    status = 400 if error.status_code == 422 else error.status_code
    headers = dict(error.headers) if error.headers else None
    return ApiError(status, error.type, error.message, error.field, headers)


async def sse(chunks: AsyncIterator[Json]) -> AsyncIterator[str]:
    """Server-sent events of chunks, and [DONE] after the last, unless that is an error.

    In ASCII: some clients take characters such as U+2028 for the end of a line.
    """
    chunk: Json = {}
    async for chunk in chunks:
        yield f"data: {json.dumps(chunk)}\n\n"
    if "error" not in chunk:
        yield "data: [DONE]\n\n"
