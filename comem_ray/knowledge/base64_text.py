"""Base64 and data URIs, read alike wherever an image comes as text: in a source's row, and in a request.

The alphabet and the `=` at the end are those of RFC 4648, section 4. White space is ignored, wherever it stands: mail
and command-line tools break lines. Anything else is refused, and the message names it. Decodes no image.
"""

from __future__ import annotations

import base64
import re
import urllib.parse

_SPACE = re.compile(r"[\t\n\f\r ]+")
_OTHER = re.compile(r"[^A-Za-z0-9+/]")
_HEAD_CHARS = 300  # of a data URI, up to its comma
_WANTED = "data:image/jpeg;base64,..."


def decode_base64(text: str) -> bytes:
    """The bytes of a base64 text. Raises ValueError, which says what is wrong with it."""
    body = _SPACE.sub("", text)
    data = body.rstrip("=")
    if other := _OTHER.search(data):
        raise ValueError(f"{_named(other.group())} at character {other.start() + 1:,} is not base64")
    if len(body) % 4 or len(body) - len(data) > 2:
        raise ValueError(
            f"the base64 text has {len(body):,} characters, want a multiple of 4: it is cut short, or lacks the = at "
            "its end"
        )
    return base64.b64decode(body)


def is_data_uri(text: str) -> bool:
    return text[:5].lower() == "data:"


def decode_data_uri(uri: str, escaped: bool = True) -> bytes:
    """The bytes of a data URI. `escaped` also takes one without ;base64, whose bytes are percent-escaped.

    Raises ValueError, which says what is wrong with it.
    """
    head, comma, body = uri.partition(",")
    if not comma or len(head) > _HEAD_CHARS:
        raise ValueError(f"the data URI has no comma before its data: want {_WANTED}")
    if head.rstrip().lower().endswith(";base64"):
        return decode_base64(urllib.parse.unquote(body))
    if not escaped:
        raise ValueError(f"the data URI does not say ;base64: want {_WANTED}")
    return urllib.parse.unquote_to_bytes(body)


def _named(character: str) -> str:
    hint = " (of the URL-safe alphabet: write + for - and / for _)" if character in "-_" else ""
    return f"{character!a}{hint}"
