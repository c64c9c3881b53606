"""A source row and what becomes of it: a `Row` that can be an item, or a `Fault` that says why it cannot.

Holds the rule of an item's text ("{title}: {description}", cut at MAX_TEXT_CHARS) and of its identity (a digest of
language, page, image, title and text). Knows no file format, and looks at no pixel.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from comem_ray.knowledge.schema import MAX_TEXT_CHARS

ID_BYTES = 12  # 24 hex digits; two of 40 million rows share one by chance with a probability of 1e-14
UNKNOWN_LANGUAGE = "und"


@dataclass(frozen=True, slots=True)
class Row:
    """A row with all that an item needs but its pixels.

    `image` is the bytes themselves, or a reference: an http(s) URL, a data URI, or a path below the source's folder
    of images.
    """

    item_id: str
    language: str
    title: str
    text: str
    page_url: str | None
    image_url: str | None
    image: str | bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row makes no item: a reason code and a sentence. `retryable` where a later run may succeed."""

    reason: str
    detail: str
    retryable: bool = False


ParsedRow = tuple[bytes, Row | Fault]
"""A row as it stood in its file, and what became of it."""


def make_row(
    *,
    language: str | None,
    title: str | None,
    description: str | None,
    page_url: str | None,
    image_url: str | None,
    image: str | bytes | None,
) -> Row | Fault:
    """Joins the fields of a source row. `image_url` is kept in the item only where it is http(s)."""
    language, title, description = _clean(language), _clean(title), _clean(description)
    page_url, image_url = _clean(page_url), _clean(image_url)
    if isinstance(image, str):
        image = image.strip()
    image = image or image_url
    text = (f"{title}: {description}" if title and description else title or description)[:MAX_TEXT_CHARS]
    if not text:
        return Fault("no_text", "neither a title nor a description")
    if not image:
        return Fault("no_image", "no image: neither bytes nor a URL nor a path")
    language = language or UNKNOWN_LANGUAGE
    reference = image_url or (image if isinstance(image, str) else "sha256:" + hashlib.sha256(image).hexdigest())
    identity = "\0".join((language, page_url, reference, title, text))
    if identity.count("\0") != 4:
        return Fault("nul_byte", "a NUL character in a field")
    try:
        item_id = hashlib.blake2b(identity.encode(), digest_size=ID_BYTES).hexdigest()
    except UnicodeEncodeError:
        return Fault("bad_utf8", "half of a surrogate pair in a field")
    web = image_url if image_url.lower().startswith(("http://", "https://")) else None
    return Row(item_id, language, title, text, page_url or None, web, image)


def _clean(field: str | None) -> str:
    return (field or "").strip()
