"""The Python client of the HTTP endpoint. It answers with the types of `comem_ray.answers`, as a Pipeline does.

Loads neither torch nor Ray. Threads may share a client.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote

from comem_ray.answers import Answer, AnswerStream, Mode, Question, Source, Usage, image_bytes_of
from comem_ray.connection import Connection, ServiceError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["URL", "Client", "ItemChange", "ItemPage", "KnowledgeItem", "NewItem", "ServiceError"]

URL = "http://127.0.0.1:8000"
BATCH_THREADS = 8  # questions of a batch that wait for their answers at once

T = TypeVar("T")


@dataclass(frozen=True)
class KnowledgeItem:
    """A knowledge item, without its image. Width and height, in pixels, are the image's.

    `live`: added while the service ran, and not yet folded into the shards. `score`: of a search, else None.
    """

    item_id: str
    language: str
    title: str
    text: str
    page_url: str | None
    image_url: str
    width: int
    height: int
    live: bool = False
    score: float | None = None


@dataclass(frozen=True)
class NewItem:
    """A knowledge item to add. `image` is a path, bytes or a PIL image; `language` is a BCP 47 tag (en, pt-BR, ...)."""

    image: str | Path | bytes | Image
    title: str
    text: str
    language: str | None = None
    page_url: str | None = None


@dataclass(frozen=True)
class ItemPage:
    """A page of knowledge items. `next_cursor` asks for the one after it, None at the end; `total` counts all items."""

    items: list[KnowledgeItem]
    next_cursor: str | None
    total: int


@dataclass(frozen=True)
class ItemChange:
    """What a change did. It is on disk when it is reported."""

    item_id: str
    status: Literal["added", "replaced", "deleted", "unchanged"]


class Client:
    """Asks the service at `url`, with its key if it wants one. `timeout_s` is the longest wait for a reply, in seconds.

    Where the service has no room (429, 503) and says when it will have, the client waits and asks again, up to
    `retries` times. Images are paths, bytes or PIL images. Every method raises ServiceError for a refusal of the
    service, or where there is no answer, and ValueError for an image that cannot be read. The constructor raises
    ValueError for a URL or a key that cannot be one.
    """

    def __init__(self, url: str = URL, timeout_s: float = 600, api_key: str | None = None, retries: int = 0):
        self._connection = Connection(url, timeout_s, api_key, retries)
        self.url, self.timeout_s = self._connection.url, timeout_s

    def answer(
        self,
        question: str,
        image: str | Path | bytes | Image | None = None,
        mode: Mode = "memory",
        k: int | None = None,
        language: str | None = None,
        max_new_tokens: int | None = None,
    ) -> Answer:
        """Answers a question. `k` and `language` are of the retrieved items; None: the configuration's."""
        body = _question_body(Question(question, image, mode, k, language, max_new_tokens))
        return self._post("/v1/answer", body, _answer)

    def answer_batch(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in the order of the questions, which are asked at once."""
        with ThreadPoolExecutor(BATCH_THREADS) as threads:
            return list(threads.map(lambda q: self._post("/v1/answer", _question_body(q), _answer), questions))

    def stream(
        self,
        question: str,
        image: str | Path | bytes | Image | None = None,
        mode: Mode = "memory",
        k: int | None = None,
        language: str | None = None,
        max_new_tokens: int | None = None,
    ) -> AnswerStream:
        """The answer piece by piece. It is asked for when the first piece is taken."""
        body = _question_body(Question(question, image, mode, k, language, max_new_tokens))
        return AnswerStream(self._pieces({**body, "stream": True}))

    def retrieve(
        self,
        image: str | Path | bytes | Image | None = None,
        text: str | None = None,
        k: int | None = None,
        by: Literal["image", "text", "both"] | None = None,
        language: str | None = None,
    ) -> list[Source]:
        """The items nearest to an image, a text, or both, best first. `by` is what is compared; None: all given."""
        body = {"image": _base64(image), "text": text, "top_k": k, "by": by, "language": language}
        return self._post("/v1/retrieve", body, lambda reply: [_record(Source, source) for source in reply["sources"]])

    def items(
        self, limit: int = 20, cursor: str | None = None, search: str | None = None, language: str | None = None
    ) -> ItemPage:
        """A page of the knowledge, what was added last first; with `search`, the items nearest to that text."""
        query = {"limit": limit, "cursor": cursor, "search": search, "language": language}
        return self._read(_page, "GET", "/v1/items", query=_given(query))

    def item(self, item_id: str) -> KnowledgeItem:
        """A knowledge item."""
        return self._read(lambda reply: _record(KnowledgeItem, reply), "GET", _item_path(item_id))

    def item_image(self, item_id: str) -> bytes:
        """The encoded image (JPEG or PNG) of a knowledge item."""
        return self._connection.request("GET", f"{_item_path(item_id)}/image").content

    def add_items(self, items: Sequence[NewItem], idempotency_key: str | None = None) -> list[str]:
        """Adds all items, or none if one cannot be taken; gives their ids, in order. An item that is there stays.

        A request that is sent twice with one `idempotency_key` counts once. None: a key of this call's own.
        """
        body = {"items": [_item_body(item) for item in items]}
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return self._read(
            lambda reply: [i["item_id"] for i in reply["items"]], "POST", "/v1/items", body=body, headers=headers
        )

    def replace_item(self, item_id: str, item: NewItem) -> ItemChange:
        """Puts an item in the place of another, whose id it takes."""
        return self._read(_change, "PUT", _item_path(item_id), body=_item_body(item))

    def delete_item(self, item_id: str) -> ItemChange:
        """Deletes an item: no answer rests on it any more."""
        return self._read(_change, "DELETE", _item_path(item_id))

    def ready(self) -> bool:
        """Whether the service is up and every part of it answers."""
        try:
            return bool(self._connection.json("GET", "/readyz").get("status") == "ready")
        except ServiceError:
            return False

    def _post(self, path: str, body: dict[str, Any], parse: Callable[[Any], T]) -> T:
        return self._read(parse, "POST", path, body=_given(body))

    def _read(self, parse: Callable[[Any], T], method: str, path: str, **fields: Any) -> T:
        """What `parse` makes of the reply. Raises ServiceError, also where the reply is of another shape."""
        return self._parsed(parse, self._connection.json(method, path, **fields))

    def _parsed(self, parse: Callable[[Any], T], reply: Any) -> T:
        try:
            return parse(reply)
        except (LookupError, TypeError) as error:
            message = f"{self.url} is not this service, or another version of it: its reply has another shape ({error})"
            raise ServiceError(0, "http_error", message) from error

    def _pieces(self, body: dict[str, Any]) -> Iterator[str | Answer]:
        for name, data in self._connection.events("/v1/answer", _given(body)):
            if name == "token":
                yield self._parsed(lambda token: token["text"], data)
            elif name == "done":
                yield self._parsed(_answer, data)
                return
            elif name == "error":
                raise self._parsed(_error, data)
        raise ServiceError(0, "unreachable", f"{self.url} ended the answer before it was whole")


def _question_body(question: Question) -> dict[str, Any]:
    return {
        "question": question.text,
        "image": _base64(question.image),
        "mode": question.mode,
        "top_k": question.k,
        "language": question.language,
        "max_new_tokens": question.max_new_tokens,
    }


def _base64(image: str | Path | bytes | Image | None) -> str | None:
    return None if image is None else base64.b64encode(image_bytes_of(image)).decode()


def _given(body: dict[str, Any]) -> dict[str, Any]:
    """The fields that have a value; the service has defaults for the others."""
    return {name: value for name, value in body.items() if value is not None}


def _item_body(item: NewItem) -> dict[str, Any]:
    return _given({**{f.name: getattr(item, f.name) for f in fields(item)}, "image": _base64(item.image)})


def _item_path(item_id: str) -> str:
    return f"/v1/items/{quote(item_id, safe='')}"


def _answer(body: Mapping[str, Any]) -> Answer:
    sources = [_record(Source, source) for source in body["sources"]]
    return Answer(body["answer"], body["mode"], sources, _record(Usage, body["usage"]), body["timings_ms"])


def _error(body: Mapping[str, Any]) -> ServiceError:
    """The error of an event; the status of such a reply was sent before."""
    error = body["error"]
    return ServiceError(200, error["type"], error["message"], error.get("field"))


def _page(body: Mapping[str, Any]) -> ItemPage:
    return ItemPage([_record(KnowledgeItem, item) for item in body["items"]], body["next_cursor"], body["total"])


def _change(body: Mapping[str, Any]) -> ItemChange:
    return _record(ItemChange, body)


def _record(cls: type[T], body: Mapping[str, Any]) -> T:
    """The dataclass of a reply's object. Fields of a later version of the service are left out."""
    names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: value for name, value in body.items() if name in names})
