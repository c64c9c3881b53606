"""What a chat asks for: a ChatRequest, checked against the configuration's limits, as a QuestionRequest.

The question is the text of the last message. Raises ApiError, whose field is a path such as
"messages.2.content.1.image_url.url".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from comem_ray.config import Config
from comem_ray.prompts import Mode, Sampling
from serve.http.chat_bodies import ChatMessage, ChatRequest, ContentPart
from serve.http.checks import Checks
from serve.http.errors import ApiError
from serve.messages import QuestionRequest, TurnMessage

FetchImage = Callable[[str], Awaitable[bytes]]
"""Fetches the image of an https URL. Raises ApiError."""

Numbered = Sequence[tuple[int, ChatMessage]]  # messages with their numbers in the request


async def chat_question(body: ChatRequest, config: Config, fetch: FetchImage | None = None) -> QuestionRequest:
    """The question of a chat. Without `fetch`, images must be data URIs."""
    checks = Checks(config)
    system, turns = _system_and_turns(body.messages)
    _check_parts(body.messages)
    _check_sizes(body.messages, config)
    mode = _mode(body, config)
    top_k, language = (body.comem.top_k, body.comem.language) if body.comem else (None, None)
    max_new_tokens, timeout_s = _max_new_tokens(body, config), body.timeout
    _at_most("comem.top_k", top_k, config.api.max_top_k)
    _at_most("timeout", timeout_s, config.api.max_timeout_s)
    number, last = turns[-1]
    question = checks.text(_text(last), f"messages.{number}.content")
    images = [[await _image(part, field, checks, fetch) for field, part in _images(n, m)] for n, m in turns]
    history = [
        TurnMessage("user" if m.role == "user" else "assistant", _text(m), encoded)
        for (_, m), encoded in zip(turns[:-1], images[:-1], strict=True)
    ]
    return QuestionRequest(
        question,
        images[-1],
        mode,
        top_k,
        language,
        max_new_tokens,
        "\n".join(text for _, m in system if (text := _text(m)).strip()) or None,
        history,
        _sampling(body, config),
        timeout_s,
    )


def _system_and_turns(messages: Sequence[ChatMessage]) -> tuple[Numbered, Numbered]:
    """The system (or developer) messages, which come first, and the turns of user and assistant after them."""
    numbered = list(enumerate(messages))
    turns = [(n, m) for n, m in numbered if m.role in ("user", "assistant")]
    system = [(n, m) for n, m in numbered if m.role not in ("user", "assistant")]
    for n, m in system[-1:]:
        if turns and n > turns[0][0]:
            raise _wrong(f"messages.{n}.role", f"a {m.role} message must come before those of user and assistant")
    n, last = numbered[-1]
    if last.role != "user":
        raise _wrong(f"messages.{n}.role", f"the last message is the question: want 'user', got {last.role!r}")
    return system, turns


def _check_parts(messages: Sequence[ChatMessage]) -> None:
    for n, message in enumerate(messages):
        if message.content is None:
            raise ApiError(422, "missing_field", "the message has no content: add it", f"messages.{n}.content")
        for i, part in enumerate(message.content):
            field, other = f"messages.{n}.content.{i}", "text" if part.type == "image_url" else "image_url"
            if getattr(part, part.type) is None:
                raise ApiError(
                    422, "missing_field", f"a part of type {part.type} needs this field", f"{field}.{part.type}"
                )
            if getattr(part, other) is not None:
                raise ApiError(422, "unknown_field", f"a part of type {part.type} has no {other}", f"{field}.{other}")
            if part.type == "image_url" and message.role != "user":
                raise _wrong(field, f"a message of the {message.role} holds no image: only a user's does")


def _check_sizes(messages: Sequence[ChatMessage], config: Config) -> None:
    chars = sum(len(_text(m)) for m in messages)
    if chars > (limit := config.api.max_chat_chars):
        message = f"the messages have {chars:,} characters, the limit is {limit:,}: leave out the oldest"
        raise ApiError(422, "text_too_long", message, "messages")
    fields = [field for n, m in enumerate(messages) for field, _ in _images(n, m)]
    if len(fields) > (limit := config.api.max_images):
        message = f"the messages have {len(fields):,} images, the limit is {limit:,}: leave out the oldest"
        raise ApiError(422, "too_many_images", message, fields[limit])


def _mode(body: ChatRequest, config: Config) -> Mode:
    """The mode that the request names, else memory; without any image to compare, none."""
    mode = body.comem.mode if body.comem else None
    has_image = any(_images(0, message) for message in body.messages)
    if mode == "none" or has_image or config.retrieval.by == "text":
        return mode or "memory"
    if mode is None:
        return "none"
    message = f"mode {mode!r} compares images: add an image to a message, or use mode 'none'"
    raise ApiError(422, "missing_field", message, "messages")


def _max_new_tokens(body: ChatRequest, config: Config) -> int | None:
    names = [name for name in ("max_completion_tokens", "max_tokens") if getattr(body, name) is not None]
    for name in names:
        _at_most(name, getattr(body, name), config.api.max_new_tokens)
    if len(names) == 2 and body.max_tokens != body.max_completion_tokens:
        raise _wrong("max_tokens", f"max_completion_tokens is {body.max_completion_tokens}: give one of the two")
    return getattr(body, names[0]) if names else None


def _sampling(body: ChatRequest, config: Config) -> Sampling | None:
    """What the request names, and the configuration's values for the rest; None where it names nothing."""
    given = {name: v for name in ("temperature", "top_p", "seed") if (v := getattr(body, name)) is not None}
    if body.stop:
        given["stop"] = tuple(body.stop)
    defaults = {"temperature": config.reasoner.temperature, "top_p": config.reasoner.top_p}
    return Sampling(**{**defaults, **given}) if given else None


async def _image(part: ContentPart, field: str, checks: Checks, fetch: FetchImage | None) -> bytes:
    """The encoded image of a part, of a known format and size by its header."""
    assert part.image_url is not None
    url = part.image_url.url
    try:
        if fetch is not None and url[:8].lower() == "https://":
            return checks.encoded_image(await fetch(url))
        data = checks.image(url)
    except ApiError as error:
        headers = dict(error.headers) if error.headers else None
        raise ApiError(error.status_code, error.type, error.message, field, headers) from error
    assert data is not None
    return data


def _images(n: int, message: ChatMessage) -> list[tuple[str, ContentPart]]:
    """The image parts of message number `n`, with the fields that their URLs are in."""
    parts = enumerate(message.content or ())
    return [(f"messages.{n}.content.{i}.image_url.url", part) for i, part in parts if part.type == "image_url"]


def _text(message: ChatMessage) -> str:
    """The text parts of a message, one per line."""
    return "\n".join(part.text for part in message.content or () if part.text is not None)


def _at_most(field: str, value: float | None, limit: float) -> None:
    if value is not None and value > limit:
        raise _wrong(field, f"it is {value:,}, the limit is {limit:,}")


def _wrong(field: str, sentence: str) -> ApiError:
    return ApiError(422, "invalid_field", f"{field}: {sentence}", field)
