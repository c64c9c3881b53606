"""The bodies of /v1/items: what is added, and what comes back."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, model_validator

from comem_ray.knowledge.items import Item
from serve.http.bodies import EXAMPLE_IMAGE, ItemReply, Language, Request


class ItemBody(Request):
    """A knowledge item as it is given: an image, and a title or a text."""

    image: str = Field(description="JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF of one frame, as base64 or as a data URI")
    title: str | None = Field(None, description="what it is about, such as the name of an article")
    text: str | None = Field(None, description="what is known; title and text together are cut at 5,000 characters")
    language: Language = None
    page_url: str | None = Field(None, description="the page that it comes from")


class AddItemsRequest(Request):
    """One or many items; `items` may be left out for one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"items": [{"image": EXAMPLE_IMAGE, "title": "Grey", "text": "A grey square.", "language": "en"}]}
            ]
        }
    )
    items: list[ItemBody] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _one_item(cls, body: object) -> object:
        return {"items": [body]} if isinstance(body, dict) and "image" in body and "items" not in body else body


class ItemStatus(BaseModel):
    item_id: str
    status: Literal["added", "unchanged", "replaced", "deleted"]


class AddItemsReply(BaseModel):
    items: list[ItemStatus] = Field(description="in the order of the request; an item that it holds twice is one")


class ListedItem(ItemReply):
    score: float | None = Field(description="cosine similarity to what was searched for")


class ItemsReply(BaseModel):
    items: list[ListedItem]
    next_cursor: str | None = Field(description="`cursor` of the next page; null: there are no more")
    total: int = Field(description="items that there are, in all languages")


def item_body(item: Item, live: bool) -> dict[str, Any]:
    """An item as the API shows it."""
    fields = ("item_id", "language", "title", "text", "page_url", "width", "height")
    return {**{f: getattr(item, f) for f in fields}, "image_url": image_url(item), "live": live}


def image_url(item: Item) -> str:
    """The source's own URL. Where a browser cannot open that, the image's path in this API."""
    url = item.image_url or ""
    return url if url.startswith(("http://", "https://")) else f"/v1/items/{quote(item.item_id)}/image"
