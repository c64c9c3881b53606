"""The Python client of the HTTP endpoint. It answers with the types of `comem_ray.answers`, as a Pipeline does.

Loads neither torch nor Ray. Threads may share a client.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import httpx

from comem_ray.answers import Answer, AnswerStream, Mode, Question, Source, Usage, image_bytes_of

if TYPE_CHECKING:
    from PIL.Image import Image

URL = "http://127.0.0.1:8000"
CONNECT_TIMEOUT_S = 10
BATCH_THREADS = 8  # questions of a batch that wait for their answers at once


class ServiceError(RuntimeError):
    """What went wrong: the HTTP `status`, a code (`type`), a sentence, and the field of the request it is about.

    Where the service does not answer, `status` is 0 and `type` is "unreachable" or "timeout".
    """

    def __init__(self, status: int, type: str, message: str, field: str | None = None):
        super().__init__(f"{status} {type}: {message}" if status else message)
        self.status, self.type, self.message, self.field = status, type, message, field


@dataclass(frozen=True)
class KnowledgeItem:
    """A knowledge item, without its image. Width and height, in pixels, are the image's."""

    item_id: str
    language: str
    title: str
    text: str
    page_url: str | None
    image_url: str
    width: int
    height: int


class Client:
    """Asks the service at `url`. `timeout_s` is the longest wait for a reply, in seconds.

    Images are paths, bytes or PIL images. Every method raises ServiceError for a refusal of the service, or where there
    is no answer, and ValueError for an image that cannot be read.
    """

    def __init__(self, url: str = URL, timeout_s: float = 600):
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self.timeout_s = timeout_s
        self._http = httpx.Client(timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S))

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
        return _answer(self._post("/v1/answer", body))

    def answer_batch(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in the order of the questions, which are asked at once."""
        with ThreadPoolExecutor(BATCH_THREADS) as threads:
            return list(threads.map(lambda q: _answer(self._post("/v1/answer", _question_body(q))), questions))

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
        return [Source(**source) for source in self._post("/v1/retrieve", body)["sources"]]

    def item(self, item_id: str) -> KnowledgeItem:
        """A knowledge item."""
        return KnowledgeItem(**self._get(f"/v1/items/{quote(item_id, safe='')}").json())

    def item_image(self, item_id: str) -> bytes:
        """The encoded image (JPEG or PNG) of a knowledge item."""
        return self._get(f"/v1/items/{quote(item_id, safe='')}/image").content

    def ready(self) -> bool:
        """Whether the service is up and every part of it answers."""
        try:
            return bool(self._get("/readyz").json().get("status") == "ready")
        except ServiceError:
            return False

    def _get(self, path: str) -> httpx.Response:
        with self._connected():
            return _checked(self._http.get(self.url + path))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        with self._connected():
            return _checked(self._http.post(self.url + path, json=_given(body))).json()

    def _pieces(self, body: dict[str, Any]) -> Iterator[str | Answer]:
        with self._connected(), self._http.stream("POST", f"{self.url}/v1/answer", json=_given(body)) as response:
            if response.is_error:
                response.read()
            _checked(response)
            for name, data in _events(response.iter_lines()):
                if name == "token":
                    yield data["text"]
                elif name == "done":
                    yield _answer(data)
                    return
                elif name == "error":
                    raise ServiceError(response.status_code, **data["error"])
        raise ServiceError(0, "unreachable", f"{self.url} ended the answer before it was whole")

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Says of a failed connection, in a ServiceError, what to look at."""
        try:
            yield
        except httpx.ConnectTimeout as error:
            raise ServiceError(0, "unreachable", f"cannot reach {self.url}: it does not answer") from error
        except httpx.TimeoutException as error:
            raise ServiceError(0, "timeout", f"no answer from {self.url} within {self.timeout_s:g} s") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            message = f"no answer from {self.url} ({error}): is the service running (`make serve`)?"
            raise ServiceError(0, "unreachable", message) from error


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


def _answer(body: dict[str, Any]) -> Answer:
    sources = [Source(**source) for source in body["sources"]]
    return Answer(body["answer"], body["mode"], sources, Usage(**body["usage"]), body["timings_ms"])


def _events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Server-sent events (name, data)."""
    name = ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def _checked(response: httpx.Response) -> httpx.Response:
    """The response. Raises ServiceError where it is an error, also one that another server than ours sent."""
    if response.is_success:
        return response
    try:
        error = response.json()["error"]
        raise ServiceError(response.status_code, error["type"], error["message"], error["field"])
    except (ValueError, LookupError, TypeError):
        text = response.text[:200].strip() or response.reason_phrase
        raise ServiceError(response.status_code, "http_error", text) from None
