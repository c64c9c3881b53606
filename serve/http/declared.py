"""What a request says of its body before it comes: length, type, encoding. Reads no body."""

from __future__ import annotations

from starlette.datastructures import Headers

from serve.http.errors import ApiError

_WITH_JSON = ("POST", "PUT", "PATCH")


def refuse_declared(method: str, headers: Headers, max_bytes: int) -> None:
    """Raises ApiError where the body's length, encoding or type cannot be taken."""
    lengths = headers.getlist("content-length")
    if len(lengths) > 1 or not all(length.isascii() and length.isdecimal() for length in lengths):
        sent = ", ".join(lengths)[:100]
        raise ApiError(400, "invalid_header", f"Content-Length is {sent!r}: want one number of bytes")
    if lengths and (len(lengths[0]) > 15 or int(lengths[0]) > max_bytes):
        raise too_large(f"{int(lengths[0][:15]):,}" if len(lengths[0]) <= 15 else "far too many", max_bytes)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        message = f"Content-Encoding is {encoding[:100]!r}: send the body as it is, not compressed"
        raise ApiError(415, "unsupported_encoding", message)
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if method in _WITH_JSON and media_type != "application/json":
        got = repr(media_type[:100]) if media_type else "none"
        raise ApiError(415, "unsupported_media_type", f"want Content-Type: application/json, got {got}")


def too_large(size: str, max_bytes: int) -> ApiError:
    return ApiError(
        413, "body_too_large", f"the body has {size} bytes, the limit is {max_bytes:,}: send a smaller image"
    )
