"""The outcome of parsing a source row: a `Row` that can be an item, or a `RowFault` that says why it cannot.

Holds the rules of an item's text ("{title}: {description}", cut at MAX_TEXT_CHARS), of its identity (a digest of
language, page, image, title and text, unless the source gives an id), and of the form of each field: the language is a
tag (BCP 47), titles and addresses are bounded. Knows no file format, and reads no pixel.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from comem_ray.knowledge.base64_text import is_data_uri
from comem_ray.language import normalize_language
from comem_ray.prompts import MAX_TEXT_CHARS

ID_BYTES = 12  # 24 hex digits; two of 40 million rows share one by chance with a probability of 1e-14
NO_ITEM = bytes(ID_BYTES)  # the identity of a rejected row, and of no item
UNKNOWN_LANGUAGE = "und"
MAX_TITLE_CHARS = 1_000  # Wikipedia's own limit is 255 bytes
MAX_URL_CHARS = 8_192  # also of a path; a data URI is bounded by the length of its row
_ID = re.compile(rf"[0-9a-f]{{{2 * ID_BYTES}}}")


@dataclass(frozen=True, slots=True)
class Row:
    """A row with all that an item needs, except the pixels.

    `image` is bytes, or a reference: an http(s) URL, a data URI, or a path below the source's folder of images.
    `digest` is that of its fields: the `item_id` itself, unless the source gives one. Embeddings are ready ones that
    the source brings along: the bytes of (C,) float16 vectors of length 1.
    """

    item_id: str
    language: str
    title: str
    text: str
    page_url: str | None
    image_url: str | None
    image: str | bytes
    digest: str
    image_embedding: bytes | None = None
    text_embedding: bytes | None = None


@dataclass(frozen=True, slots=True)
class RowFault:
    """Why a row makes no item: a reason code and a sentence. `retryable`: a later run may succeed."""

    reason: str
    detail: str
    retryable: bool = False


ParsedRow = tuple[bytes, Row | RowFault]
"""The bytes of a row in its file, with the Row or the RowFault made of them."""


def make_row(
    *,
    language: str | None,
    title: str | None,
    description: str | None,
    page_url: str | None,
    image_url: str | None,
    image: str | bytes | None,
    item_id: str | None = None,
) -> Row | RowFault:
    """Joins the fields of a source row. The item keeps `image_url` only if it is http(s).

    `item_id` takes the place of the digest of the fields.
    """
    language, title, description = _clean(language), _clean(title), _clean(description)
    page_url, image_url = _clean(page_url), _clean(image_url)
    if isinstance(image, str):
        image = image.strip()
    if fault := _length_fault(title, page_url, image_url, image):
        return fault
    if item_id is not None and not is_item_id(item_id):
        return RowFault("item_id_invalid", f"item_id is {item_id[:40]!r}, want 24 hex digits (0-9, a-f), not all 0")
    try:
        language = normalize_language(language) if language else UNKNOWN_LANGUAGE
    except ValueError as error:
        return RowFault("language_invalid", str(error))
    image = image or image_url
    text = (f"{title}: {description}" if title and description else title or description)[:MAX_TEXT_CHARS]
    if not text:
        return RowFault("no_text", "the row has neither a title nor a description")
    if not image:
        return RowFault("no_image", "the row has no image: neither bytes nor a URL nor a path")
    reference = image_url or (image if isinstance(image, str) else "sha256:" + hashlib.sha256(image).hexdigest())
    identity = "\0".join((language, page_url, reference, title, text))
    if identity.count("\0") != 4:
        return RowFault("nul_byte", "a field holds a NUL character")
    try:
        digest = hashlib.blake2b(identity.encode(), digest_size=ID_BYTES).hexdigest()
    except UnicodeEncodeError:
        return RowFault("bad_utf8", "a field holds half of a surrogate pair")
    web = image_url if image_url.lower().startswith(("http://", "https://")) else None
    return Row(item_id or digest, language, title, text, page_url or None, web, image, digest)


def is_item_id(text: str) -> bool:
    """Whether `text` has the form of an `item_id`: 24 lower-case hex digits, not all 0."""
    return _ID.fullmatch(text) is not None and text != NO_ITEM.hex()


def _length_fault(title: str, page_url: str, image_url: str, image: str | bytes | None) -> RowFault | None:
    """The fault of a field that is longer than its kind ever is: mostly another column in its place."""
    limits = [("title", title, MAX_TITLE_CHARS), ("page_url", page_url, MAX_URL_CHARS)]
    references = [("image_url", image_url), ("image", image if isinstance(image, str) else "")]
    limits += [(name, value, MAX_URL_CHARS) for name, value in references if not is_data_uri(value)]
    for name, value, limit in limits:
        if len(value) > limit:
            hint = ": base64 wants data:image/jpeg;base64, before it" if name.startswith("image") else ""
            return RowFault("field_too_long", f"{name} has {len(value):,} characters, the limit is {limit:,}{hint}")
    return None


def _clean(field: str | None) -> str:
    return (field or "").strip()
