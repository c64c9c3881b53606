"""Errors of the HTTP API: one shape, `{"error": {"type", "message", "field"}}`, and what each cause becomes in it.

A message says what to change. What went wrong inside is logged with the request's id and never shown.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from comem_ray.artifacts import ArtifactError
from serve.messages import Refusal

log = logging.getLogger("ray.serve")  # its records carry the request id

OPENAI_PATHS = ("/v1/chat/", "/v1/models")  # their errors have `param` and `code` too
# Our words for a fault, and those that OpenAI's clients look for in `code`. Others are the same in both.
_CODES = {
    "prompt_too_long": "context_length_exceeded",
    "missing_field": "missing_required_parameter",
    "unknown_field": "unknown_parameter",
    "unsupported_field": "unsupported_parameter",
}
FIELD_CHARS = 200  # of a field's name in an error: it may be the user's own
LINE_CHARS = 300  # of a traceback in the log, so that no image is in it
T = TypeVar("T")


class ApiError(HTTPException):
    """An error with its status, a code (`type`), a sentence, and the field of the request it is about, if any.

    A 429 and a 503 always say when to try again (Retry-After, whole seconds, 1 at least).
    """

    def __init__(
        self, status: int, type: str, message: str, field: str | None = None, headers: dict[str, str] | None = None
    ):
        if status in (429, 503):
            headers = retry_after(1) | (headers or {})
        super().__init__(status, message, headers)
        self.type, self.message, self.field = type, message, field

    def body(self) -> dict[str, dict[str, str | None]]:
        return {"error": {"type": self.type, "message": self.message, "field": self.field}}

    def response(self) -> JSONResponse:
        return ErrorResponse(self)


class ErrorResponse(JSONResponse):
    """An ApiError on its way out; leaves its type in the request's state, for the metrics."""

    def __init__(self, error: ApiError):
        super().__init__(error.body(), error.status_code, error.headers)
        self.error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["error"] = self.error.type
        if scope["path"].startswith(OPENAI_PATHS):
            body = {"error": openai_error(self.error.body()["error"])}
            await JSONResponse(body, self.error.status_code, self.error.headers)(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def openai_error(error: Mapping[str, Any]) -> dict[str, Any]:
    """An error of this API (type, message, field), with OpenAI's `param` and `code`."""
    return {**error, "param": error["field"], "code": _CODES.get(error["type"], error["type"])}


def retry_after(seconds: float) -> dict[str, str]:
    """The header Retry-After: whole seconds, 1 at least."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def overloaded(what: str, retry_after_s: float = 1) -> ApiError:
    """429: a queue is full; the same request will succeed later."""
    message = f"{what}: send the same request again in a few seconds"
    return ApiError(429, "overloaded", message, None, retry_after(retry_after_s))


def restarting(what: str, retry_after_s: float = 5) -> ApiError:
    """503: a part of the service is gone and comes back; the same request will succeed later."""
    message = f"{what}: send the same request again in a few seconds"
    return ApiError(503, "restarting", message, None, retry_after(retry_after_s))


def internal() -> ApiError:
    return ApiError(500, "internal", "something failed on our side: the log has it under this response's X-Request-ID")


async def reply_of(response: Awaitable[T | Refusal], what: str) -> T:
    """The reply of a deployment. Raises ApiError where it refused, has no room, or died on the way."""
    try:
        reply = await response
    except Exception as error:
        raise unavailable(error, what) or error from error
    if isinstance(reply, Refusal):
        raise refused(reply)
    return reply


def refused(refusal: Refusal) -> ApiError:
    """A refusal of a deployment as an ApiError."""
    headers = None if refusal.retry_after_s is None else retry_after(refusal.retry_after_s)
    return ApiError(refusal.status, refusal.type, refusal.message, refusal.field, headers)


def refusal_of(error: Exception, what: str) -> Refusal:
    """What another deployment failed with, as a refusal of one's own. Raises the error where it is not about that."""
    refused = unavailable(error, what)
    if refused is None:
        raise error
    return Refusal(refused.type, refused.message, refused.field, refused.status_code, 5)


def timed_out() -> ApiError:
    """504: the request's own time is up."""
    message = "the answer was not there within its time: ask for a shorter one, or raise `timeout`"
    return ApiError(504, "timeout", message, "timeout")


def knowledge_missing(folders: Mapping[str, str]) -> ApiError:
    """503: folders of the knowledge base are gone, perhaps for a while."""
    log.error("the knowledge base cannot be read: %s", "; ".join(folders.values()))
    names = ", ".join(folders)
    return restarting(f"a part of the knowledge base cannot be read now ({names})")


def damaged(error: ArtifactError) -> Refusal:
    """500: a file of the knowledge base is not what was written. Logged in one line; another try would not help."""
    log.error("artifact: %s", error)
    return Refusal("artifact_damaged", str(error), None, 500)


def unavailable(error: Exception, what: str) -> ApiError | None:
    """The 429 of a deployment that has no room, the 503 of one that is gone; None where the error is another."""
    if isinstance(error, BackPressureError):
        return overloaded(f"too many requests are waiting for {what}", error.retry_after_s or 1)
    if isinstance(error, (DeploymentUnavailableError, RayActorError)):
        log.warning("%s went away: %s", what, type(error).__name__)
        return restarting(f"{what} is being restarted")
    return None


def api_error(error: Exception) -> ApiError:
    """Any exception as an ApiError; one that is not the fault of the request is logged with its traceback."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error.errors()[0])
    if isinstance(error, HTTPException):
        return _http(error)
    if isinstance(error, ArtifactError):
        return refused(damaged(error))
    log.error("request failed\n%s", _traceback(error))
    return internal()


def _traceback(error: Exception) -> str:
    """The traceback, its lines cut: a message may hold what a user sent."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(line if len(line) <= LINE_CHARS else f"{line[:LINE_CHARS]}..." for line in lines)


def _http(error: HTTPException) -> ApiError:
    headers = dict(error.headers) if error.headers else None
    if error.status_code == 404:
        return ApiError(404, "unknown_path", "there is no such path: see /docs for the paths", None, headers)
    if error.status_code == 405:
        allowed = (headers or {}).get("Allow") or (headers or {}).get("allow", "another method")
        return ApiError(405, "method_not_allowed", f"this path wants {allowed}", None, headers)
    if error.status_code == 400:
        return ApiError(400, "invalid_json", "the body cannot be read as JSON (UTF-8, not nested too deeply)")
    return ApiError(error.status_code, "http_error", str(error.detail), None, headers)


def _invalid(error: Any) -> ApiError:
    """The first fault that the request's model found, in words."""
    # loc is ("body", field, ...) or ("path", field); a body that is not an object has no field.
    field = ".".join(str(part) for part in error["loc"][1:])[:FIELD_CHARS] or None
    if field is None:
        return ApiError(422, "missing_body" if error["type"] == "missing" else "invalid_body", "want a JSON object")
    if error["type"] == "extra_forbidden":
        return ApiError(422, "unknown_field", f"there is no field {field!r}: remove it (see /docs)", field)
    if error["type"] == "missing":
        return ApiError(422, "missing_field", f"{field} is missing: add it", field)
    return ApiError(422, "invalid_field", f"{field}: {error['msg'][:1].lower()}{error['msg'][1:]}", field)
