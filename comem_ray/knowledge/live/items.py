"""Live items: uploads checked by the rules of jobs.ingest, with the vectors and the memory that models make of them.

An ingest of the line that export writes of a live item gives the same item: the same id, text and image bytes. Knows
no database and no model.

Letters: C width of the CLIP space, Q queries (8), D model width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from comem_ray.config import ImageConfig
from comem_ray.knowledge.images import ImageError, StoredImage, normalize_image
from comem_ray.knowledge.items import Item
from comem_ray.knowledge.sources.rows import Row, RowFault, make_row
from comem_ray.prompts import MAX_TEXT_CHARS

ITEM_ID = re.compile("[0-9a-f]{24}")


class ItemRefused(ValueError):
    """An upload that jobs.ingest would reject: its `reason` (a code), its `detail` (a sentence), and the `field`."""

    def __init__(self, reason: str, detail: str, field: str):
        super().__init__(detail)
        self.reason, self.detail, self.field = reason, detail, field


@dataclass(frozen=True)
class Upload:
    """An item as a user gives it. `image` holds the bytes of an image file, `text` is the description."""

    image: bytes
    title: str
    text: str
    language: str | None
    page_url: str | None = None


@dataclass(frozen=True)
class LiveContent:
    """An item with its image as stored."""

    item: Item

    @property
    def description(self) -> str:
        """What has to stand for the description, so that title and description make the item's text again."""
        return item_description(self.item)


@dataclass(frozen=True)
class LiveItem:
    """An item with all that retrieval and the reasoner need of it.

    `vectors`: "image" and, unless clip.texts is false, "text": each (C,) float32, rounded to float16 as shards are.
    `memory`: (Q, D) int16, the bits of bfloat16. `clip` and `encoder`: fingerprints of the models that made them.
    """

    content: LiveContent
    vectors: Mapping[str, np.ndarray]
    memory: np.ndarray
    clip: str
    encoder: str


def make_item(upload: Upload, limits: ImageConfig, item_id: str | None = None) -> LiveContent:
    """The item of an upload. `item_id` (24 hex digits) takes the place of the digest: the item replaces that one.

    Raises ItemRefused with the reason and the detail of jobs.ingest, ValueError for another `item_id`.
    """
    if item_id is not None and not ITEM_ID.fullmatch(item_id):
        raise ValueError(f"an item_id has 24 hex digits (0-9, a-f), got {item_id[:50]!r}")
    row = make_row(
        language=upload.language,
        title=upload.title,
        description=upload.text,
        page_url=upload.page_url,
        image_url=None,
        image=upload.image,
    )
    if isinstance(row, RowFault):
        raise ItemRefused(row.reason, row.detail, _faulty_field(upload, row))
    image = _stored(upload.image, limits)
    return LiveContent(_item(row, image, item_id or row.item_id))


def item_description(item: Item) -> str:
    """The description of an item that `make_row` made: with the title, it makes the same text again."""
    if item.text == item.title:
        return ""
    description = item.text[len(item.title) + 2 :] if item.title else item.text
    # A text that was cut may end in white space, which a row loses. What stands behind the cut is cut again.
    return f"{description}…" if len(item.text) == MAX_TEXT_CHARS else description


def _stored(data: bytes, limits: ImageConfig) -> StoredImage:
    try:
        stored = normalize_image(data, limits)
    except ImageError as error:
        raise ItemRefused(error.reason, error.detail, "image") from error
    if len(stored.data) > limits.max_bytes:  # as a file of the live source, ingest would reject it
        detail = f"{len(stored.data):,} bytes as it would be stored, the limit is {limits.max_bytes:,}"
        raise ItemRefused("image_too_many_bytes", detail, "image")
    return stored


def _item(row: Row, image: StoredImage, item_id: str) -> Item:
    return Item(
        item_id=item_id,
        language=row.language,
        title=row.title,
        text=row.text,
        page_url=row.page_url,
        image_url=row.image_url,
        image=image.data,
        width=image.width,
        height=image.height,
    )


def _faulty_field(upload: Upload, fault: RowFault) -> str:
    """The field of an upload that a fault of its row is about."""
    by_reason = {"language_invalid": "language", "no_text": "text", "no_image": "image"}
    if fault.reason == "field_too_long":
        return fault.detail.split()[0]
    wrong = "\0" if fault.reason == "nul_byte" else "[\ud800-\udfff]"
    fields = {"title": upload.title, "page_url": upload.page_url, "text": upload.text}
    faulty = (name for name, value in fields.items() if re.search(wrong, value or ""))
    return by_reason.get(fault.reason) or next(faulty, "text")
