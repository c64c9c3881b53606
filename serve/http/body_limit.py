"""ASGI layer in front of the API: refuses a body that is too large, or not declared as JSON, before it is read.

A declared length is read from the header. A chunked body is counted while it is read, and reading stops at the limit.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.errors import ApiError


class BodyLimit:
    """Refuses bodies over `max_bytes` (413) and POSTs of another type than JSON (415)."""

    def __init__(self, app: ASGIApp, max_bytes: int):
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if error := self._refusal(scope):
            await error.response()(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.max_bytes:
                raise self._too_large(f"more than {self.max_bytes:,}")
            return message

        await self.app(scope, counted, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.max_bytes:
            return self._too_large(f"{int(length):,}")
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and media_type != "application/json":
            got = repr(media_type[:100]) if media_type else "none"
            return ApiError(415, "unsupported_media_type", f"want Content-Type: application/json, got {got}")
        return None

    def _too_large(self, size: str) -> ApiError:
        message = f"the body has {size} bytes, the limit is {self.max_bytes:,}: send a smaller image"
        return ApiError(413, "body_too_large", message, None, {"Connection": "close"})
