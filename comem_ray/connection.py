"""The client's connection to a service: its address, key, retries, and what fails on the way, in one sentence.

Knows HTTP and the shape of an error, `{"error": {"type", "message", "field"}}`; nothing of questions and items.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

CONNECT_TIMEOUT_S = 10
RETRIED = (429, 503)  # statuses that pass by themselves, where Retry-After says when
MAX_PAUSE_S = 60  # a service that asks for a longer wait is not waited for
_HOST = re.compile(r"[\w.-]+|\[[0-9A-Fa-f:.]+\]")
_EXAMPLE = "want one such as http://127.0.0.1:8000"

T = TypeVar("T")


class ServiceError(RuntimeError):
    """What went wrong: the HTTP `status`, a code (`type`), a sentence, and the field of the request it is about.

    `retry_after_s` is the wait that the service asks for, if it does. Where the service does not answer, `status` is 0
    and `type` is "unreachable" or "timeout"; where what answers is another server, `type` is "http_error".
    """

    def __init__(
        self, status: int, type: str, message: str, field: str | None = None, retry_after_s: float | None = None
    ):
        super().__init__(f"{status} {type}: {message}" if status else message)
        self.status, self.type, self.message, self.field = status, type, message, field
        self.retry_after_s = retry_after_s


class Connection:
    """Requests to the service at `url`. Threads may share it.

    `api_key` is sent as a bearer token. A refusal with 429 or 503 and Retry-After is tried again after that time, up to
    `retries` times. Raises ValueError for a URL or a key that cannot be one.
    """

    def __init__(self, url: str, timeout_s: float, api_key: str | None, retries: int):
        self.url, self.timeout_s, self.retries = service_url(url), timeout_s, max(0, retries)
        headers = {"Authorization": f"Bearer {_checked_key(api_key)}"} if api_key else {}
        self._http = httpx.Client(timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S), headers=headers)

    def request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """The reply. Raises ServiceError where it is an error, or where there is none."""

        def once() -> httpx.Response:
            with self._in_words():
                return _checked(
                    self._http.request(method, self.url + path, json=body, params=query or None, headers=headers)
                )

        return self._retried(once)

    def json(self, method: str, path: str, **fields: Any) -> Any:
        """The object that a reply holds. Raises ServiceError, also where it holds none."""
        return self._object(self.request(method, path, **fields).text)

    def events(self, path: str, body: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """The server-sent events (name, data) of a reply to a POST. Raises ServiceError."""
        with ExitStack() as stack:
            stack.enter_context(self._in_words())
            response = self._retried(lambda: stack.enter_context(self._streamed(path, body)))
            name = ""
            for line in _lines(response.iter_bytes()):
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield name, self._object(value)

    @contextmanager
    def _streamed(self, path: str, body: dict[str, Any]) -> Iterator[httpx.Response]:
        with self._http.stream("POST", self.url + path, json=body) as response:
            if not response.is_success:
                response.read()
            yield _checked(response)

    def _retried(self, call: Callable[[], T]) -> T:
        for attempt in range(self.retries + 1):
            try:
                return call()
            except ServiceError as error:
                pause = error.retry_after_s
                if attempt == self.retries or error.status not in RETRIED or pause is None or pause > MAX_PAUSE_S:
                    raise
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _object(self, text: str) -> Any:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ServiceError(0, "http_error", f"{self.url} is not this service: it answers with {text[:80]!r}")
        return value

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Says of a failed connection, in a ServiceError, what to look at."""
        try:
            yield
        except httpx.ConnectTimeout as error:
            raise ServiceError(0, "unreachable", f"cannot reach {self.url}: it does not answer") from error
        except httpx.TimeoutException as error:
            raise ServiceError(0, "timeout", f"no answer from {self.url} within {self.timeout_s:g} s") from error
        except (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError, UnicodeError) as error:
            message = f"no answer from {self.url} ({error}): is the service running (`make serve`)?"
            raise ServiceError(0, "unreachable", message) from error


def service_url(url: str) -> str:
    """The address without a slash at its end; `http://` where it has no scheme.

    The `/v1` that OpenAI's clients want at the end is taken away. Raises ValueError for what is not an address.
    """
    text = url.strip()
    text = text if "://" in text else f"http://{text}"
    fault = ""
    try:
        parts = urlsplit(text)
        if parts.port == 0:
            fault = "port 0 cannot be connected to"
    except ValueError as error:  # a port that is no number or out of range, brackets that do not match
        raise ValueError(f"{url!r} is not an address ({error}): {_EXAMPLE}") from error
    host = parts.netloc.rpartition("@")[2].removesuffix(f":{parts.port}")
    if parts.scheme not in ("http", "https"):
        fault = f"{parts.scheme}:// is neither http:// nor https://"
    elif host.lower() in ("http", "https") or not _HOST.fullmatch(host):
        fault = f"{host!r} is not the name of a host" if host else "it names no host"
    elif "@" in parts.netloc or parts.query or parts.fragment:
        fault = "it holds more than scheme, host, port and path"
    if fault:
        raise ValueError(f"{url!r} is not an address ({fault}): {_EXAMPLE}")
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def _checked_key(key: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", key.strip()):
        raise ValueError("the API key holds a space or a character beyond ASCII: copy it again")
    return key.strip()


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    """Lines that end in a line feed; other characters that end lines elsewhere, such as U+2028, are text."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def _checked(response: httpx.Response) -> httpx.Response:
    """The response. Raises ServiceError where it is an error, also one that another server than ours sent."""
    if response.is_success:
        return response
    wait_s = _retry_after(response.headers.get("Retry-After", ""))
    try:
        error = response.json()["error"]
        fault = error["type"], error["message"], error.get("field")
    except (ValueError, LookupError, TypeError, AttributeError):
        fault = "http_error", response.text[:200].strip() or response.reason_phrase, None
    raise ServiceError(response.status_code, *fault, wait_s)


def _retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header; None for a date, which this service does not send."""
    return float(value) if value.strip().isdecimal() else None
