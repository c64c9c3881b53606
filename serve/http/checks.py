"""Checks of a request before any model works on it: the configured limits, and the image by its header.

Raises ApiError, which names the field and what would be right. An image is decoded later, where its pixels are needed.
"""

from __future__ import annotations

from comem_ray.config import Config
from comem_ray.knowledge.base64_text import decode_base64, decode_data_uri, is_data_uri
from comem_ray.knowledge.images import ImageError, check_header
from serve.http.bodies import AnswerRequest, RetrieveRequest
from serve.http.errors import ApiError
from serve.messages import By, QuestionRequest, Refusal, Search


def refused_image(error: ImageError) -> Refusal:
    return Refusal(error.reason, f"the image cannot be used: {error.detail}", "image")


class Checks:
    """The limits of a configuration."""

    def __init__(self, config: Config):
        self.limits, self.retrieval = config.api, config.retrieval

    def image(self, image: str | None, field: str = "image") -> bytes | None:
        """The encoded image of a base64 string or data URI, of a known format and size by its header."""
        return None if image is None else self.encoded_image(_decoded(image, field), field)

    def encoded_image(self, data: bytes, field: str = "image") -> bytes:
        """The same bytes, of a known format and size by their header."""
        try:
            check_header(data, self.limits.max_image_pixels)
        except ImageError as error:
            refusal = refused_image(error)
            raise ApiError(422, refusal.type, refusal.message, field) from error
        return data

    def text(self, text: str, field: str) -> str:
        if not text.strip():
            raise ApiError(422, "empty_text", f"{field} is empty: write one", field)
        if len(text) > self.limits.max_question_chars:
            limit = self.limits.max_question_chars
            raise ApiError(
                422, "text_too_long", f"{field} has {len(text):,} characters, the limit is {limit:,}: shorten it", field
            )
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise ApiError(422, "invalid_field", f"{field} holds half a surrogate pair: remove it", field)
        return text

    def top_k(self, top_k: int | None) -> int:
        k = self.retrieval.top_k if top_k is None else top_k
        if k > self.limits.max_top_k:
            limit = self.limits.max_top_k
            raise ApiError(422, "invalid_field", f"top_k is {k:,}, want 1 to {limit}", "top_k")
        return k

    def max_new_tokens(self, tokens: int | None) -> int | None:
        if tokens is not None and tokens > self.limits.max_new_tokens:
            limit = self.limits.max_new_tokens
            raise ApiError(422, "invalid_field", f"max_new_tokens is {tokens:,}, want 1 to {limit:,}", "max_new_tokens")
        return tokens

    def timeout(self, seconds: float | None) -> float | None:
        if seconds is not None and seconds > self.limits.max_timeout_s:
            limit = self.limits.max_timeout_s
            raise ApiError(422, "invalid_field", f"timeout is {seconds:,g} s, want at most {limit:,g}", "timeout")
        return seconds

    def question(self, request: AnswerRequest, fetched: bytes | None = None) -> QuestionRequest:
        """The question of a request to /v1/answer; `fetched` is its image, where that is a URL."""
        image = fetched or self.image(request.image)
        return QuestionRequest(
            self.text(request.question, "question"),
            [] if image is None else [image],
            request.mode,
            self.top_k(request.top_k),
            request.language,
            self.max_new_tokens(request.max_new_tokens),
            timeout_s=self.timeout(request.timeout),
        )

    def answer_search(self, question: QuestionRequest) -> Search | None:
        """The search of a question; None in mode 'none'."""
        k = self.top_k(question.top_k)
        if question.mode == "none":
            return None
        by, image = self.retrieval.by, question.last_image
        _want_image(image, by, f"mode {question.mode!r}", "or use mode 'none'")
        return Search(image, question.question, k, by, question.language or self.retrieval.language, None)

    def search(self, request: RetrieveRequest, image: bytes | None) -> Search:
        """The search of a retrieve request; without `by`, all that is given is compared."""
        text = None if request.text is None else self.text(request.text, "text")
        if image is None and text is None:
            raise ApiError(422, "missing_field", "give an image, a text, or both", "image")
        given: By = "both" if image and text else "image" if image else "text"
        by = request.by or given
        _want_image(image, by, f"by {by!r}", "or search by 'text'")
        if by in ("text", "both") and text is None:
            raise ApiError(422, "missing_field", f"by {by!r} needs a text: add one, or search by 'image'", "text")
        return Search(
            image, text, self.top_k(request.top_k), by, request.language or self.retrieval.language, request.text_weight
        )


def _want_image(image: bytes | None, by: By, what: str, other: str) -> None:
    if image is None and by in ("image", "both"):
        raise ApiError(422, "missing_field", f"{what} compares images: add an image, {other}", "image")


def _decoded(image: str, field: str) -> bytes:
    try:
        data = decode_data_uri(image, escaped=False) if is_data_uri(image) else decode_base64(image)
    except ValueError as error:
        is_url = image.startswith(("http://", "https://"))
        fault = "this is a URL, send the image itself" if is_url else str(error)
        raise ApiError(422, "invalid_image", f"image is not base64: {fault}", field) from error
    if not data:
        raise ApiError(422, "image_empty", "image holds no bytes: send an image, or leave the field out", field)
    return data
