"""The bodies of the HTTP API: the fields of requests and replies, with the examples of the documentation.

`serve.http.checks` has the limits that the configuration sets (characters of a question, top_k, ...).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from comem_ray.language import normalize_language
from comem_ray.prompts import Mode
from serve.messages import By

# A grey square of 8 x 8 pixels.
EXAMPLE_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mNsaGhgwAaYGHCAwSkBADAXAZDUexXGAA"
    "AAAElFTkSuQmCC"
)

Image = Annotated[
    str | None,
    Field(
        description="JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF of one frame, as base64 or as a data URI; line ends and "
        "spaces in it are ignored"
    ),
]
TopK = Annotated[int | None, Field(ge=1, description="items to retrieve; the configuration sets default and maximum")]


def _language(tag: str) -> str:
    try:
        return normalize_language(tag)
    except ValueError as error:
        raise PydanticCustomError("language", "{sentence}", {"sentence": str(error)}) from error


Language = Annotated[
    Annotated[str, AfterValidator(_language)] | None,
    Field(description="only items of this language (BCP 47: en, pt-BR, ...; pt_br is read as pt-BR)"),
]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AnswerRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"question": "Which country is this?", "image": EXAMPLE_IMAGE},
                {"question": "What is its capital?", "image": EXAMPLE_IMAGE, "mode": "rag", "top_k": 2},
                {"question": "What is the capital of Peru?", "mode": "none", "max_new_tokens": 16, "stream": True},
            ]
        }
    )
    question: str
    image: Image = None
    mode: Mode = Field("memory", description="what helps the answer: nothing, the items in the prompt, or their memory")
    top_k: TopK = None
    language: Language = None
    max_new_tokens: int | None = Field(None, ge=1, description="tokens of the answer at most")
    stream: bool = Field(False, description="answer as server-sent events: sources, token ..., done (or error)")
    timeout: float | None = Field(None, gt=0, description="seconds after which the answer is given up")


class RetrieveRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"image": EXAMPLE_IMAGE, "top_k": 5},
                {"text": "a long country by the sea", "language": "en"},
                {"image": EXAMPLE_IMAGE, "text": "a long country by the sea", "by": "both", "text_weight": 0.3},
            ]
        }
    )
    image: Image = None
    text: str | None = None
    by: By | None = Field(None, description="what is compared; by default all that the request has")
    top_k: TopK = None
    language: Language = None
    text_weight: float | None = Field(None, ge=0, le=1, description="weight of the text's score where by is both")


class SourceBody(BaseModel):
    item_id: str
    title: str
    text: str
    score: float = Field(description="cosine similarity; for `both`, the weighted mean of two")
    image_url: str = Field(description="the source's own URL, else the path of the image in this API")
    page_url: str | None = Field(None, description="the page that it comes from")


class UsageBody(BaseModel):
    prompt_tokens: int = Field(description="tokens of question, images and items, without memory")
    memory_vectors: int
    completion_tokens: int


Timings = Annotated[dict[str, float], Field(description="milliseconds per stage, and of the whole request (`total`)")]


class AnswerReply(BaseModel):
    answer: str
    mode: Mode
    finish_reason: Literal["stop", "length"] = Field(description="`length`: the answer was cut at its limit of tokens")
    sources: list[SourceBody]
    timings_ms: Timings
    usage: UsageBody


class RetrieveReply(BaseModel):
    sources: list[SourceBody]
    timings_ms: Timings


class ItemReply(BaseModel):
    item_id: str
    language: str
    title: str
    text: str
    page_url: str | None
    image_url: str
    width: int
    height: int
    live: bool = Field(description="added or replaced while the service ran, and not folded into the shards yet")


class StatusReply(BaseModel):
    status: str


class ReadyReply(StatusReply):
    generations: dict[str, str] = Field(description="what is served: 12 digits for each of items, index and memory")


class ErrorBody(BaseModel):
    type: str = Field(description="a code that stays the same between versions")
    message: str = Field(description="a sentence that says what to change")
    field: str | None = Field(None, description="the field of the request it is about")


class ErrorReply(BaseModel):
    error: ErrorBody


def error_docs(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error replies of a path for the OpenAPI document."""
    return {s: _error_doc(*_ERRORS[s]) for s in statuses}


def _error_doc(title: str, type: str, message: str, field: str | None) -> dict[str, Any]:
    example = {"error": {"type": type, "message": message, "field": field}}
    return {"model": ErrorReply, "description": title, "content": {"application/json": {"example": example}}}


EVERYWHERE = (401, 421, 429, 500)  # error replies of every path but the health checks

_ERRORS: dict[int, tuple[str, str, str, str | None]] = {
    400: ("The body is not JSON", "invalid_json", "the body is not JSON: Expecting value at character 12", None),
    401: (
        "The service has API keys, and this request has none, or another",
        "missing_key",
        "this service wants a key: send Authorization: Bearer KEY (a browser: the key as password)",
        None,
    ),
    403: ("It may not be changed", "read_only", "this knowledge base cannot be changed over HTTP", None),
    404: ("Not there", "unknown_item", "there is no item 'abc'", "item_id"),
    408: (
        "The body did not arrive in time, or too many of this client were arriving",
        "body_timeout",
        "the body did not arrive within 10 seconds: send a smaller image, or the same again",
        None,
    ),
    409: (
        "The Idempotency-Key was used for another request",
        "idempotency_key_reused",
        "this Idempotency-Key was used for another request: take a new one",
        None,
    ),
    413: (
        "The body is too large",
        "body_too_large",
        "the body has 104,857,600 bytes, the limit is 20,000,000: send a smaller image",
        None,
    ),
    415: (
        "The body is not declared as JSON",
        "unsupported_media_type",
        "want Content-Type: application/json, got text/plain",
        None,
    ),
    421: (
        "No API keys are set, and the Host header is not one of api.allowed_hosts",
        "unknown_host",
        "the Host header is 'example.org', which is not in api.allowed_hosts: add it there, or set API keys",
        None,
    ),
    422: (
        "A field cannot be used",
        "image_too_many_pixels",
        "the image cannot be used: 20000x20000 pixels, the limit is 50,000,000 pixels",
        "image",
    ),
    429: (
        "Too many requests: of this caller, or of all; Retry-After says when to try again",
        "overloaded",
        "too many requests are waiting for the reasoner: send the same request again in a few seconds",
        None,
    ),
    500: (
        "A fault of the server; the log holds it under the X-Request-ID of the response",
        "internal",
        "something failed on our side: the log has it under this response's X-Request-ID",
        None,
    ),
    503: (
        "A part is being restarted; Retry-After says when to try again",
        "restarting",
        "the reasoner is being restarted: send the same request again in a few seconds",
        None,
    ),
    504: (
        "The time of the request is up",
        "timeout",
        "the answer was not there within its time: ask for a shorter one, or raise `timeout`",
        "timeout",
    ),
    507: (
        "No room for further changes of the knowledge base until jobs.compact has run",
        "too_many_changes",
        "there are 50,000 changes that are not folded into shards yet: run jobs.compact, then send this again",
        None,
    ),
}
