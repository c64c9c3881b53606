"""A chat's question: its parts, the configured limits, and faults with the path of their field."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError
from support.serving import as_base64
from support.tiny import png

from comem_ray.config import Config
from comem_ray.prompts import Sampling
from serve.http.chat_bodies import ChatRequest
from serve.http.chat_question import chat_question
from serve.http.errors import ApiError
from serve.messages import QuestionRequest, TurnMessage

LIMITS = {
    "max_images": 2,
    "max_question_chars": 50,
    "max_chat_chars": 100,
    "max_new_tokens": 40,
    "max_top_k": 5,
    "max_timeout_s": 60,
}


@pytest.fixture(scope="module")
def config(make_config: Any) -> Config:
    config: Config = make_config(api=LIMITS, reasoner={"temperature": 0.5, "top_p": 0.9})
    return config


def question(config: Config, *messages: dict[str, Any], **fields: Any) -> QuestionRequest:
    body = ChatRequest.model_validate({"model": "tiny", "messages": list(messages), **fields})
    return asyncio.run(chat_question(body, config))


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def image(seed: int) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{as_base64(png(seed))}"}}


def system(words: str, role: str = "system") -> dict[str, Any]:
    return {"role": role, "content": words}


def assistant(words: str) -> dict[str, Any]:
    return {"role": "assistant", "content": words}


def test_a_conversation(config: Config) -> None:
    messages = [
        system("Be brief."),
        system("Speak English.", "developer"),
        user(image(1), text("Which"), text("city?")),
        assistant("Sofia."),
        user(text("And this?"), image(2)),
    ]
    assert question(
        config, *messages, max_tokens=9, timeout=3, comem={"top_k": 2, "language": "EN"}
    ) == QuestionRequest(
        question="And this?",
        images=[png(2)],
        mode="memory",
        top_k=2,
        language="en",
        max_new_tokens=9,
        system="Be brief.\nSpeak English.",
        history=[TurnMessage("user", "Which\ncity?", [png(1)]), TurnMessage("assistant", "Sofia.", [])],
        sampling=None,
        timeout_s=3,
    )


def test_what_is_not_given_is_left_to_the_configuration(config: Config) -> None:
    assert question(config, user("Why?")) == QuestionRequest("Why?", [], "none", None, None, None)
    assert question(config, system(" "), user("Why?")).system is None


@pytest.mark.parametrize("by", ["image", "both", "text"])
def test_without_an_image_the_mode_is_none_where_images_are_compared(make_config: Any, by: str) -> None:
    config = make_config(retrieval={"by": by})
    assert question(config, user("Why?")).mode == ("memory" if by == "text" else "none")
    assert question(config, user("Why?"), comem={"mode": "none"}).mode == "none"
    assert question(config, user(image(1)), assistant("A."), user("Why?")).mode == "memory"
    if by == "text":
        assert question(config, user("Why?"), comem={"mode": "rag"}).mode == "rag"
    else:
        with pytest.raises(ApiError, match="mode 'rag' compares images") as raised:
            question(config, user("Why?"), comem={"mode": "rag"})
        assert (raised.value.type, raised.value.field) == ("missing_field", "messages")


def test_sampling_has_the_configurations_values_for_what_is_not_given(config: Config) -> None:
    def sampling(**fields: Any) -> Sampling | None:
        return question(config, user("Why?"), **fields).sampling

    assert sampling(seed=0) == Sampling(0.5, 0.9, seed=0)
    assert sampling(temperature=0, top_p=1) == Sampling(0, 1)
    assert sampling(stop="\n") == Sampling(0.5, 0.9, stop=("\n",))
    assert sampling(stop=["a", "b"], temperature=2) == Sampling(2, 0.9, stop=("a", "b"))
    assert sampling(temperature=None, stop=None, stream=True) is None


def test_both_names_of_the_longest_answer(config: Config) -> None:
    assert question(config, user("Why?"), max_completion_tokens=40).max_new_tokens == 40
    assert question(config, user("Why?"), max_completion_tokens=7, max_tokens=7).max_new_tokens == 7
    with pytest.raises(ApiError, match="give one of the two"):
        question(config, user("Why?"), max_completion_tokens=7, max_tokens=8)


WHY = user("Why?")
SVG = {"type": "image_url", "image_url": {"url": f"data:image/svg+xml;base64,{as_base64(b'<svg></svg>' * 9)}"}}

# messages, further fields, type, field
CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str, str]] = {
    "system message late": ([WHY, system("x"), WHY], {}, "invalid_field", "messages.1.role"),
    "answer last": ([WHY, assistant("x")], {}, "invalid_field", "messages.1.role"),
    "system message alone": ([system("x")], {}, "invalid_field", "messages.0.role"),
    "no content": ([{"role": "user"}, WHY], {}, "missing_field", "messages.0.content"),
    "no parts": ([{"role": "user", "content": []}], {}, "empty_text", "messages.0.content"),
    "empty question": ([WHY, assistant("x"), user(" ")], {}, "empty_text", "messages.2.content"),
    "image alone": ([user(image(1))], {}, "empty_text", "messages.0.content"),
    "long question": ([user("x" * 51)], {}, "text_too_long", "messages.0.content"),
    "long chat": ([assistant("x" * 99), user("xx")], {}, "text_too_long", "messages"),
    "text part without text": ([user({"type": "text"})], {}, "missing_field", "messages.0.content.0.text"),
    "image part without image": (
        [user(text("a"), {"type": "image_url"})],
        {},
        "missing_field",
        "messages.0.content.1.image_url",
    ),
    "part of two kinds": ([user({**image(1), "text": "a"})], {}, "unknown_field", "messages.0.content.0.text"),
    "image of the assistant": (
        [{"role": "assistant", "content": [image(1)]}, WHY],
        {},
        "invalid_field",
        "messages.0.content.0",
    ),
    "three images": (
        [user(image(1), image(2)), user(text("Why?"), image(3))],
        {},
        "too_many_images",
        "messages.1.content.1.image_url.url",
    ),
    "SVG": ([WHY, user(text("Why?"), SVG)], {}, "image_svg", "messages.1.content.1.image_url.url"),
    "many tokens": ([WHY], {"max_tokens": 41}, "invalid_field", "max_tokens"),
    "many completion tokens": ([WHY], {"max_completion_tokens": 41}, "invalid_field", "max_completion_tokens"),
    "long timeout": ([WHY], {"timeout": 61}, "invalid_field", "timeout"),
    "many items": ([WHY], {"comem": {"top_k": 6}}, "invalid_field", "comem.top_k"),
}


@pytest.mark.parametrize("name", CASES)
def test_wrong_chats(config: Config, name: str) -> None:
    messages, fields, type, field = CASES[name]
    with pytest.raises(ApiError) as raised:
        question(config, *messages, **fields)
    assert (raised.value.type, raised.value.field) == (type, field)


def test_messages_hold_both_numbers(config: Config) -> None:
    for name, words in {
        "long question": "51 characters, the limit is 50",
        "long chat": "101 characters, the limit is 100",
        "three images": "3 images, the limit is 2",
        "many tokens": "max_tokens: it is 41, the limit is 40",
    }.items():
        messages, fields, *_ = CASES[name]
        with pytest.raises(ApiError, match=words):
            question(config, *messages, **fields)


@pytest.mark.parametrize("url", ["http://example.org/a.png", "https://example.org/a.png", "file:///etc/passwd", "?"])
def test_without_a_fetch_only_data_uris_are_images(config: Config, url: str) -> None:
    with pytest.raises(ApiError) as raised:
        question(config, user(text("Why?"), {"type": "image_url", "image_url": {"url": url}}))
    assert raised.value.type == "invalid_image"


def test_half_a_surrogate_pair_is_refused_wherever_it_is(config: Config) -> None:
    for messages, fields in (([user("\ud800")], {}), ([WHY], {"stop": "\ud800"}), ([assistant("\ud800"), WHY], {})):
        with pytest.raises(ValidationError, match="surrogate"):
            question(config, *messages, **fields)
