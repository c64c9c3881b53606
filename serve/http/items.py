"""The paths of the knowledge: items to read, search, add, replace and delete."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import FastAPI, Header, Query, Request
from starlette.responses import JSONResponse, Response

from serve.flow import Flow
from serve.http.bodies import EVERYWHERE, ItemReply, Language, error_docs
from serve.http.errors import ApiError
from serve.http.item_bodies import AddItemsReply, AddItemsRequest, ItemBody, ItemsReply, ItemStatus, item_body

_IMAGE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'",
    "Cache-Control": "private, no-cache",  # an item may be replaced or deleted
}
_IMAGE = {"description": "The image", "content": {"image/jpeg": {}, "image/png": {}}}

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="sent again with the same request, nothing is done twice; kept for 24 hours",
    ),
]


def item_routes(app: FastAPI, flow: Flow) -> None:
    """Registers the paths below /v1/items."""
    _reading(app, flow)
    _changing(app, flow)


def _reading(app: FastAPI, flow: Flow) -> None:
    @app.get("/v1/items", response_model=ItemsReply, responses=error_docs(422, 503, *EVERYWHERE))
    async def items(
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        cursor: Annotated[str | None, Query(description="next_cursor of the page before")] = None,
        search: Annotated[str | None, Query(description="the items nearest to this text, best first")] = None,
        language: Language = None,
    ) -> Response:
        """The items there are, page by page: those added last first; or those that a text finds."""
        if search is not None and search.strip():
            return JSONResponse({**await flow.find_items(search, limit, language), "next_cursor": None})
        listed, following, total = await flow.listing.page(cursor, limit, language)
        rows = [{**item_body(item, live), "score": None} for item, live in listed]
        return JSONResponse({"items": rows, "next_cursor": following, "total": total})

    @app.get("/v1/items/{item_id}", response_model=ItemReply, responses=error_docs(404, 503, *EVERYWHERE))
    async def item(item_id: str) -> Response:
        """A knowledge item."""
        return JSONResponse(item_body(*await flow.item(item_id)))

    @app.get(
        "/v1/items/{item_id}/image",
        response_class=Response,
        responses={200: _IMAGE, **error_docs(404, 503, *EVERYWHERE)},
    )
    async def image(item_id: str) -> Response:
        """The image of a knowledge item."""
        stored, _ = await flow.item(item_id, image=True)
        assert stored.image is not None
        return Response(stored.image, media_type=_media_type(stored.image), headers=_IMAGE_HEADERS)


def _changing(app: FastAPI, flow: Flow) -> None:
    errors = error_docs(400, 403, 408, 409, 413, 415, 422, 503, 507, *EVERYWHERE)

    @app.post("/v1/items", status_code=201, response_model=AddItemsReply, responses=errors)
    async def add(body: AddItemsRequest, request: Request, key: IdempotencyKey = None) -> Response:
        """Adds items, all or none. They are on disk, retrievable and in memory when this is answered."""
        statuses = await flow.editor.add(body.items, _key(request, key), await _digest(request))
        rows = [{"item_id": item_id, "status": status} for item_id, status in statuses.items()]
        return JSONResponse({"items": rows}, 201)

    @app.put("/v1/items/{item_id}", response_model=ItemStatus, responses={**errors, **error_docs(404)})
    async def replace(item_id: str, body: ItemBody, request: Request, key: IdempotencyKey = None) -> Response:
        """Gives an item another content; its id stays."""
        return _status(await flow.editor.replace(item_id, body, _key(request, key), await _digest(request)))

    @app.delete("/v1/items/{item_id}", response_model=ItemStatus, responses={**errors, **error_docs(404)})
    async def delete(item_id: str, request: Request, key: IdempotencyKey = None) -> Response:
        """Deletes an item: no later request sees it."""
        return _status(await flow.editor.delete(item_id, _key(request, key), await _digest(request)))


def _status(statuses: dict[str, str]) -> Response:
    ((item_id, status),) = statuses.items()
    return JSONResponse({"item_id": item_id, "status": status})


def _key(request: Request, key: str | None) -> str | None:
    """The idempotency key, of its caller alone."""
    if key is None:
        return None
    if not key.isascii() or not key.isprintable():
        raise ApiError(422, "invalid_field", "Idempotency-Key: want printable ASCII characters", "Idempotency-Key")
    return f"{caller_of(request)}\n{key}"


async def _digest(request: Request) -> str:
    parts = (request.method.encode(), request.url.path.encode(), await request.body())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def caller_of(request: Request) -> str:
    """Who sends a request: the name of the key, else the address."""
    address = request.client.host if request.client else "unknown"
    return getattr(request.state, "caller", f"address:{address}")


def _media_type(data: bytes) -> str:
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
