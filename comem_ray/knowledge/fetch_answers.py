"""What the answer of a host means for an image: its status, its body, and the target of its redirect.

Final is only what says that there is no such image at this address. Whatever depends on the configuration, on who asks
or on the hour is `retryable`: a refusal, a log-in, a page in place of the image, a fault of the host.

    retryable      fetch_http_401, 402, 403, 407, 408, 418, 421, 423, 425, 429, 451, 5xx and every code without a
                   meaning of its own; fetch_not_image (a page of HTML, JSON or text with status 200), fetch_empty
    not retryable  fetch_http_404, 410, and those that blame the request itself (400, 405, 406, 414, ...)

Makes no connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_from_bytes, urljoin

from comem_ray.knowledge.images import ImageError

RETRY_NOW = {408, 425, 429, 500, 502, 503, 504}  # 425: too early
IMAGE_STATUSES = {200, 203}
_FINAL = {400, 404, 405, 406, 410, 411, 412, 413, 414, 415, 416, 417, 422, 426, 428, 431}
_HEAD = 1_024  # bytes that show whether a body is text
_USER_AGENT = "name yourself and a contact in ingest.fetch.user_agent, then run again"
_POLICY = f"by its policy it does not serve this client: {_USER_AGENT}"
_ADVICE = {
    401: f"it wants a log-in, or {_USER_AGENT}",
    402: _POLICY,
    403: _POLICY,
    407: "a proxy wants a log-in: run where the network needs none",
    418: _POLICY,
    429: f"too many requests: lower ingest.fetch.per_host, or {_USER_AGENT}",
    451: "it may not serve the image here, for legal reasons: run elsewhere, or leave the row out",
    511: "the network wants a log-in (a captive portal): log in, then run again",
}
_IMAGE = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\0")  # the last: AVIF
_TEXT_TYPES = ("text/", "application/json", "application/problem", "application/xhtml", "application/javascript")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # no text holds these; \x1b begins a sequence of ISO-2022
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


class FetchError(ImageError):
    """An image that could not be fetched. `retry_now`: try again, after `wait_s` seconds (the host's Retry-After)."""

    def __init__(self, reason: str, detail: str, retryable: bool = False, retry_now: bool = False, wait_s: float = 0):
        super().__init__(reason, detail, retryable)
        self.retry_now, self.wait_s = retry_now, wait_s


def status_error(status: int, wait_s: float) -> FetchError:
    """What a status other than IMAGE_STATUSES means."""
    advice = f": {_ADVICE[status]}" if status in _ADVICE else ""
    detail = f"the host answered with HTTP status {status}{advice}"
    final = status in _FINAL or 300 <= status < 400
    return FetchError(f"fetch_http_{status}", detail, not final, status in RETRY_NOW, wait_s)


def refuse_page(data: bytes, headers: Mapping[str, Any] | None = None) -> None:
    """Raises FetchError for a body that is no image but an answer in words: the content counts, then the type."""
    if not data:
        raise FetchError("fetch_empty", "the host sent no byte, with a status of success: run again later", True)
    kind = page_kind(data, str((headers or {}).get("Content-Type", "")))
    if kind is not None:
        raise FetchError(
            "fetch_not_image",
            f"the host sent {kind} in place of the image, as hosts do that limit or refuse a client: {_USER_AGENT}",
            True,
        )


def page_kind(data: bytes, content_type: str = "") -> str | None:
    """What a body in words is (`an HTML page`, ...); None for an image, an SVG, and other bytes that are not text."""
    head = data[:_HEAD]
    if head.startswith(_IMAGE) and _CONTROL.search(head):
        return None
    start = head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")) or b"<html" in start:
        return "an HTML page"
    if start.startswith(b"<") and b"<svg" in data[: 4 * _HEAD].replace(b"\0", b"").lower():
        return None
    declared = content_type.lower().startswith(_TEXT_TYPES)
    if not declared and _CONTROL.search(head) and not head.startswith(_UTF16):
        return None
    if start.startswith((b"{", b"[")):
        return "JSON"
    if start.startswith(b"<?xml"):
        return "XML"
    return "text" if declared or len(head.split(maxsplit=2)) > 1 else None  # words, not a stretch of letters


def ends_early(data: bytes | bytearray) -> bool:
    """Whether a JPEG or PNG lacks its end: where a host does not announce a length, a lost connection looks whole."""
    end = data[-_HEAD:]
    if data.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" not in end
    return data.startswith(b"\x89PNG") and b"IEND" not in end


def escape_stray_percents(url: str) -> str:
    """`url` with every % that starts no escape sequence as %25; the valid sequences stay what they are."""
    return _STRAY_PERCENT.sub("%25", url)


def redirect_target(url: str, location: str) -> str:
    """The absolute address of a Location header, whose bytes the HTTP library gives as Latin-1.

    They are UTF-8 where they can be; other bytes are escaped as they are, as browsers do. Raises FetchError.
    """
    raw = location.strip().encode("latin-1", "surrogateescape")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = quote_from_bytes(raw, safe="!#$%&'()*+,/:;=?@[]~")
    try:
        return urljoin(url, text)
    except ValueError as error:
        raise FetchError("fetch_url", "the target of a redirect is not a URL") from error
