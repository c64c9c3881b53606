"""The HTTP API: paths, documents and error replies over a Flow. Knows nothing of Ray and of models."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from comem_ray import __version__
from comem_ray.config import ApiConfig
from serve.flow import Flow, Json, image_url
from serve.http.bodies import (
    AnswerReply,
    AnswerRequest,
    ItemReply,
    ReadyReply,
    RetrieveReply,
    RetrieveRequest,
    StatusReply,
    error_docs,
)
from serve.http.errors import ApiError, retry_after
from serve.http.json_body import JsonRoute
from serve.http.keys import Keys, load_keys
from serve.http.layers import add_layers

_DESCRIPTION = """
Questions about images, answered by a frozen vision-language model with the help of retrieved knowledge items.
Every error has the shape `{"error": {"type", "message", "field"}}`.
"""
_EVERYWHERE = (401, 421, 429, 500)  # error replies of every path but the health checks
_STREAMED = {
    "description": "The answer; with `stream` as server-sent events: `sources`, `token` ..., `done` (or `error`)",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
_IMAGE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'",
    "Cache-Control": "public, max-age=86400",  # an item's id is a digest of what makes it
}


def build_api(flow: Flow, limits: ApiConfig, keys: Keys | None = None) -> FastAPI:
    """The API, its guards in front. `keys`: those of the configuration and the environment (ConfigError)."""
    app = FastAPI(title="CoMEM on Ray", version=__version__, description=_DESCRIPTION, redirect_slashes=False)
    app.router.route_class = JsonRoute
    _questions(app, flow)
    _items(app, flow)
    _health(app, flow)
    add_layers(app, limits, load_keys(limits) if keys is None else keys)
    return app


def _questions(app: FastAPI, flow: Flow) -> None:
    errors = error_docs(400, 408, 413, 415, 422, 503, *_EVERYWHERE)

    @app.post("/v1/answer", response_model=AnswerReply, responses={200: _STREAMED, **errors})
    async def answer(body: AnswerRequest, request: Request) -> Response:
        """Answers a question, with an image or (mode `none`) without."""
        prepared = await flow.prepare(body)
        if body.stream:
            headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            return StreamingResponse(_sse(flow.stream(prepared)), media_type="text/event-stream", headers=headers)
        return _timed(request, await flow.answer(prepared))

    @app.post("/v1/retrieve", response_model=RetrieveReply, responses=errors)
    async def retrieve(body: RetrieveRequest, request: Request) -> Response:
        """The items nearest to an image, to a text, or to both."""
        return _timed(request, await flow.retrieve(body))


def _items(app: FastAPI, flow: Flow) -> None:
    @app.get("/v1/items/{item_id}", response_model=ItemReply, responses=error_docs(404, *_EVERYWHERE))
    async def item(item_id: str) -> Response:
        """A knowledge item."""
        i = await flow.item(item_id)
        fields = ("item_id", "language", "title", "text", "page_url", "width", "height")
        return JSONResponse({**{f: getattr(i, f) for f in fields}, "image_url": image_url(i)})

    content = {"description": "The image", "content": {"image/jpeg": {}, "image/png": {}}}

    @app.get(
        "/v1/items/{item_id}/image",
        response_class=Response,
        responses={200: content, **error_docs(404, *_EVERYWHERE)},
    )
    async def image(item_id: str) -> Response:
        """The image of a knowledge item."""
        data = (await flow.item(item_id, image=True)).image
        assert data is not None
        return Response(data, media_type=_media_type(data), headers=_IMAGE_HEADERS)


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
            raise ApiError(
                503, "not_ready", f"no answer from {names}: ask again in a few seconds", None, retry_after(5)
            )
        return JSONResponse({"status": "ready", "generations": flow.generations})


def _timed(request: Request, body: Json) -> Response:
    request.state.timings_ms = body["timings_ms"]  # for the log
    return JSONResponse(body)


async def _sse(events: AsyncIterator[tuple[str, Json]]) -> AsyncIterator[str]:
    async for name, data in events:
        yield f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def _media_type(data: bytes) -> str:
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
