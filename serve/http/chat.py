"""POST /v1/chat/completions and GET /v1/models: OpenAI's API over a Flow. Knows nothing of Ray and of models.

The body is in `serve.http.chat_bodies`, its checks in `chat_question`, the replies in `chat_replies`. A fault of a
field is a 400, as with OpenAI, and every error has `param` and `code` too.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse, Response, StreamingResponse

from comem_ray.config import Config
from serve.flow import Flow
from serve.http.chat_bodies import ChatRequest
from serve.http.chat_question import FetchImage, chat_question
from serve.http.chat_replies import (
    ChatAnswer,
    ChatErrorReply,
    ChatReply,
    Json,
    ModelBody,
    ModelList,
    chat_refusal,
    model_body,
    sse,
)
from serve.http.errors import ApiError, api_error
from serve.http.json_body import JsonRoute

_ERRORS: dict[int | str, dict[str, Any]] = {"default": {"model": ChatErrorReply, "description": "What is wrong"}}
_STREAMED = {
    "description": "The answer; with `stream` as server-sent events: chunks, then [DONE] (or an error)",
    "content": {"text/event-stream": {}},
}
_SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class ChatRoute(JsonRoute):
    """A path whose errors are those of OpenAI's API."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_with_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as error:
                return _error_response(error)

        return handle_with_errors


def chat_routes(app: FastAPI, flow: Flow, config: Config, fetch: FetchImage | None = None) -> None:
    """Adds the paths. `fetch` fetches images of https URLs; without it they are refused."""
    router = APIRouter(route_class=ChatRoute)
    started = int(time.time())

    @router.post("/v1/chat/completions", response_model=ChatReply, responses={200: _STREAMED, **_ERRORS})
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answers the last message of a chat, with images or without."""
        _check_model(body.model, config.name, "model")
        question = await chat_question(body, config, fetch)
        prepared = await flow.prepare(question, caller_of(request))
        answer = ChatAnswer(config.name, question.mode)
        if body.stream:
            events = await _begun(flow.stream(prepared))
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            chunks = answer.chunks(events, include_usage)
            return StreamingResponse(sse(chunks), media_type="text/event-stream", headers=_SSE_HEADERS)
        reply = await flow.answer(prepared)
        request.state.timings_ms = reply["timings_ms"]  # for the log
        return JSONResponse(answer.completion(reply))

    @router.get("/v1/models", response_model=ModelList, responses=_ERRORS)
    async def models() -> Response:
        """The model that answers here."""
        return JSONResponse({"object": "list", "data": [model_body(config.name, started)]})

    @router.get("/v1/models/{model:path}", response_model=ModelBody, responses=_ERRORS)
    async def model(model: str) -> Response:
        """A model."""
        _check_model(model, config.name, "model")
        return JSONResponse(model_body(config.name, started))

    app.router.routes.extend(router.routes)  # as routes of their own, each of which names its methods


def caller_of(request: Request) -> str:
    """Who asks: the key's name, as the guards in front noted it, or the address."""
    address = request.client.host if request.client else "unknown"
    return getattr(request.state, "caller", None) or f"address:{address}"


def _check_model(model: str, name: str, field: str) -> None:
    if model != name:
        raise ApiError(404, "model_not_found", f"there is no model {model[:64]!r}: want {name!r}", field)


async def _begun(events: AsyncIterator[tuple[str, Json]]) -> AsyncIterator[tuple[str, Json]]:
    """The same events, once the second is there: the first text, or the error that came in its place.

    Such an error may have a status of its own (`status` and `retry_after` beside `error`). Then it is raised as an
    ApiError: a client reads from the status, and from Retry-After, whether to try again.
    """
    first = [await anext(events)]
    if first[0][0] != "error":
        first.append(await anext(events))
    name, data = first[-1]
    if name == "error" and "status" in data:
        headers = {"Retry-After": str(data["retry_after"])} if data.get("retry_after") else None
        raise ApiError(data["status"], **data["error"], headers=headers)
    return _chained(first, events)


async def _chained(first: list[tuple[str, Json]], events: Any) -> AsyncIterator[tuple[str, Json]]:
    async with aclosing(events):  # a reader who leaves ends the answer
        for event in first:
            yield event
        async for event in events:
            yield event


def _error_response(error: Exception) -> Response:
    return chat_refusal(_unsupported(error) or api_error(error)).response()


def _unsupported(error: Exception) -> ApiError | None:
    """The refusal of a field that this service does not have, if that is the first fault of the body."""
    fault = error.errors()[0] if isinstance(error, RequestValidationError) else {"type": ""}
    if fault["type"] != "unsupported":
        return None
    field = ".".join(str(part) for part in fault["loc"][1:])
    return ApiError(422, "unsupported_field", f"{field}: {fault['msg']}", field)
