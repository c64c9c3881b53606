"""The HTTP API: paths, documents and error replies over a Flow. Knows nothing of Ray and of models."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from comem_ray import __version__
from comem_ray.config import Config
from serve.flow import Flow, Json
from serve.http.bodies import (
    EVERYWHERE,
    AnswerReply,
    AnswerRequest,
    ReadyReply,
    RetrieveReply,
    RetrieveRequest,
    StatusReply,
    error_docs,
)
from serve.http.chat import chat_routes
from serve.http.chat_question import FetchImage
from serve.http.errors import ApiError, retry_after
from serve.http.fetching import remote_image
from serve.http.items import caller_of, item_routes
from serve.http.json_body import JsonRoute
from serve.http.keys import Keys, load_keys
from serve.http.layers import add_layers
from serve.http.page import page_routes

_DESCRIPTION = """
Questions about images, answered by a frozen vision-language model with the help of retrieved knowledge items.
Every error has the shape `{"error": {"type", "message", "field"}}`.
"""
_STREAMED = {
    "description": "The answer; with `stream` as server-sent events: `sources`, `token` ..., `done` (or `error`)",
    "content": {"text/event-stream": {}},
}


def build_api(flow: Flow, config: Config, keys: Keys | None = None) -> FastAPI:
    """The API, its guards in front. `keys`: those of the configuration and the environment (ConfigError)."""
    about: dict[str, Any] = {"title": "CoMEM on Ray", "version": __version__, "description": _DESCRIPTION}
    app = FastAPI(**about, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.router.route_class = JsonRoute
    fetch = partial(remote_image, config=config.api) if config.api.fetch_hosts else None
    _questions(app, flow, fetch)
    chat_routes(app, flow, config, fetch)
    item_routes(app, flow)
    _health(app, flow)
    page_routes(app)
    add_layers(app, config.api, load_keys(config.api) if keys is None else keys)
    return app


def _questions(app: FastAPI, flow: Flow, fetch: FetchImage | None) -> None:
    errors = error_docs(400, 408, 413, 415, 422, 503, 504, *EVERYWHERE)

    @app.post("/v1/answer", response_model=AnswerReply, responses={200: _STREAMED, **errors})
    async def answer(body: AnswerRequest, request: Request) -> Response:
        """Answers a question, with an image or (mode `none`) without."""
        question = flow.checks.question(body, await _fetched(body.image, fetch))
        prepared = await flow.prepare(question, caller_of(request))
        if body.stream:
            headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            return StreamingResponse(_sse(flow.stream(prepared)), media_type="text/event-stream", headers=headers)
        return _timed(request, await flow.answer(prepared))

    @app.post("/v1/retrieve", response_model=RetrieveReply, responses=errors)
    async def retrieve(body: RetrieveRequest, request: Request) -> Response:
        """The items nearest to an image, to a text, or to both."""
        return _timed(request, await flow.retrieve(body, await _fetched(body.image, fetch)))


def _health(app: FastAPI, flow: Flow) -> None:
    @app.get("/healthz", response_model=StatusReply)
    async def healthz() -> Response:
        """The process is up."""
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", response_model=ReadyReply, responses=error_docs(503))
    async def readyz() -> Response:
        """Every deployment answers; what they answer from."""
        if unready := await flow.unready():
            names = ", ".join(f"{name} ({why})" for name, why in unready.items())
            message = f"no answer from {names}: ask again in a few seconds"
            raise ApiError(503, "not_ready", message, None, retry_after(5))
        return JSONResponse({"status": "ready", "generations": flow.knowledge.base.generations.folders})


async def _fetched(image: str | None, fetch: FetchImage | None) -> bytes | None:
    """The image at a URL, where such are fetched; None for an image that is in the request itself, or none."""
    is_url = image is not None and image[:8].lower() == "https://"
    return await fetch(image) if image is not None and is_url and fetch is not None else None


def _timed(request: Request, body: Json) -> Response:
    request.state.timings_ms = body["timings_ms"]  # for the log
    return JSONResponse(body)


async def _sse(events: AsyncIterator[tuple[str, Json]]) -> AsyncIterator[str]:
    async for name, data in events:
        yield f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
