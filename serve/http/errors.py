"""Errors of the HTTP API: one shape, `{"error": {"type", "message", "field"}}`, and what each cause becomes in it.

A message says what to change. What went wrong inside is logged with the request's id and never shown.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comem_ray.artifacts import ArtifactError
from comem_ray.clock import Clock
from serve.messages import Refusal

log = logging.getLogger("ray.serve")  # its records carry the request id

RETRY_AFTER_S = 1
T = TypeVar("T")


class ApiError(HTTPException):
    """An error with its status, a code (`type`), a sentence, and the field of the request it is about, if any."""

    def __init__(
        self, status: int, type: str, message: str, field: str | None = None, headers: dict[str, str] | None = None
    ):
        super().__init__(status, message, headers)
        self.type, self.message, self.field = type, message, field

    def body(self) -> dict[str, dict[str, str | None]]:
        return {"error": {"type": self.type, "message": self.message, "field": self.field}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status_code, self.headers)


def overloaded(what: str) -> ApiError:
    """503: a queue is full, or a replica is being replaced; the same request will succeed later."""
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return ApiError(503, "overloaded", f"{what}: send the same request again in a few seconds", None, headers)


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
    return ApiError(refusal.status, refusal.type, refusal.message, refusal.field)


def refusal_of(error: Exception, what: str) -> Refusal:
    """What another deployment failed with, as a refusal of one's own. Raises the error where it is not about that."""
    refused = unavailable(error, what)
    if refused is None:
        raise error
    return Refusal(refused.type, refused.message, refused.field, refused.status_code)


def timed_out() -> ApiError:
    """504: the request's own time is up."""
    message = "the answer was not there within its time: ask for a shorter one, or raise `timeout`"
    return ApiError(504, "timeout", message, "timeout")


def knowledge_missing(folders: Mapping[str, str]) -> ApiError:
    """503: folders of the knowledge base are gone, perhaps for a while."""
    log.error("the knowledge base cannot be read: %s", "; ".join(folders.values()))
    names = ", ".join(folders)
    return overloaded(f"a part of the knowledge base cannot be read now ({names})")


def damaged(error: ArtifactError) -> Refusal:
    """500: a file of the knowledge base is not what was written. Logged in one line; another try would not help."""
    log.error("artifact: %s", error)
    return Refusal("artifact_damaged", str(error), None, 500)


def unavailable(error: Exception, what: str) -> ApiError | None:
    """The 503 of a deployment that has no room or is gone; None where the error is another."""
    if isinstance(error, BackPressureError):
        return overloaded(f"too many requests are waiting for {what}")
    if isinstance(error, (DeploymentUnavailableError, RayActorError)):
        log.warning("%s went away: %s", what, type(error).__name__)
        return overloaded(f"{what} is being restarted")
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
    log.error("request failed", exc_info=error)
    return internal()


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
    field = ".".join(str(part) for part in error["loc"][1:]) or None
    if error["type"] == "json_invalid":
        return ApiError(400, "invalid_json", f"the body is not JSON: {error['ctx']['error']} at character {field}")
    if field is None:
        return ApiError(422, "missing_body" if error["type"] == "missing" else "invalid_body", "want a JSON object")
    if error["type"] == "extra_forbidden":
        return ApiError(422, "unknown_field", f"there is no field {field!r}: remove it (see /docs)", field)
    if error["type"] == "missing":
        return ApiError(422, "missing_field", f"{field} is missing: add it", field)
    return ApiError(422, "invalid_field", f"{field}: {error['msg'][:1].lower()}{error['msg'][1:]}", field)


class Guard:
    """Outermost ASGI layer: one log line per request, and a 500 in our shape for what no handler caught."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        clock, status = Clock(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if status:  # too late for a status of its own
                raise
            await api_error(error).response()(scope, receive, watched)
        finally:
            timings = {**clock.timings(), **scope.get("state", {}).get("timings_ms", {})}
            text = " ".join(f"{stage}_ms={ms}" for stage, ms in timings.items())
            log.info("%s %r status=%s %s", scope["method"], scope["path"][:200], status, text)
