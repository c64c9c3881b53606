"""The body of POST /v1/chat/completions in the shape of OpenAI's API, and our field `comem`.

A field of OpenAI's API that this service does not have takes only the values that change nothing (`tools: []`).
Source: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from comem_ray.prompts import Mode
from serve.http.bodies import EXAMPLE_IMAGE, Language, TopK

MAX_STOPS = 4  # as OpenAI's
MAX_STOP_CHARS = 200


class Only:
    """Says of a field that it may be absent, null, or one of `values`, all of which change nothing.

    For any other value the fault is of type "unsupported", and says what to do `instead`.
    """

    def __init__(self, *values: Any, instead: str = "leave it out"):
        self.values, self.instead = values, instead

    def check(self, value: Any) -> None:
        if value is not None and not any(_equal(value, v) for v in self.values):
            words = " or ".join(json.dumps(v) for v in self.values)
            what = f"only {words} is supported" if words else "it is not supported"
            raise PydanticCustomError("unsupported", "{what}: {instead}", {"what": what, "instead": self.instead})

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"enum": [*self.values, None]}


def _equal(value: Any, other: Any) -> bool:
    """As JSON has it: 0.0 is 0, and false is not."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _utf8(text: str) -> str:
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise PydanticCustomError("half_surrogate", "it holds half a surrogate pair: remove it")
    return text


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


Text = Annotated[str, AfterValidator(_utf8)]
Stop = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Ignored = Annotated[Any, Field(description="accepted, and without effect")]
_NO_TOOLS = "this service calls no tools"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ImageUrl(_Body):
    url: str = Field(description="a data URI with base64; an https URL only where the service may fetch from its host")
    detail: Literal["auto", "low", "high"] | None = Field(None, description="accepted, and without effect")


class ContentPart(_Body):
    """A part of a message: its type, and the field of that name."""

    type: Literal["text", "image_url"]
    text: Text | None = None
    image_url: ImageUrl | None = None


Content = Annotated[
    list[ContentPart] | None, BeforeValidator(_as_parts, json_schema_input_type=str | list[ContentPart] | None)
]


class ChatMessage(_Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Content = Field(None, description="text, or parts; images only in a user's message")
    name: Ignored = None
    # An earlier answer of ours comes back with these from OpenAI's client.
    annotations: Ignored = None
    refusal: Annotated[Any, Only()] = None
    audio: Annotated[Any, Only()] = None
    tool_calls: Annotated[Any, Only([], instead=_NO_TOOLS)] = None
    function_call: Annotated[Any, Only(instead=_NO_TOOLS)] = None


class StreamOptions(_Body):
    include_usage: bool | None = Field(None, description="one more chunk, with the usage, before [DONE]")
    include_obfuscation: Ignored = None


class RetrievalOptions(_Body):
    """What is retrieved for the last question of a chat."""

    mode: Mode | None = Field(
        None,
        description="what helps the answer: nothing, the items in the prompt, or their memory. Default: memory; for a "
        "chat without an image, where retrieval compares images, none",
    )
    top_k: TopK = None
    language: Language = None


_EXAMPLE: dict[str, Any] = {
    "model": "demo",
    "messages": [
        {"role": "system", "content": "Answer in one sentence."},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": EXAMPLE_IMAGE}},
                {"type": "text", "text": "What is the capital of this country?"},
            ],
        },
    ],
    "max_tokens": 16,
    "comem": {"mode": "memory", "top_k": 3},
}


class ChatRequest(_Body):
    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    model: Text = Field(description="an id of /v1/models")
    messages: list[ChatMessage] = Field(
        min_length=1, description="system or developer messages first, then user's and assistant's, a user's last"
    )
    comem: RetrievalOptions | None = None
    stream: bool | None = Field(None, description="answer as server-sent events: chunks, then [DONE]")
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, description="tokens of the answer at most")
    max_completion_tokens: int | None = Field(None, ge=1, description="max_tokens under its newer name")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy; default: reasoner.temperature")
    top_p: float | None = Field(
        None, gt=0, le=1, description="share of probability that is sampled from; default: reasoner.top_p"
    )
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="same seed, same draws")
    stop: Annotated[
        Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None,
        BeforeValidator(_as_list, json_schema_input_type=Stop | list[Stop] | None),
    ] = Field(None, description="a string, or up to four, that end the answer; not part of it")
    timeout: float | None = Field(None, gt=0, description="seconds after which the answer is given up (not OpenAI's)")

    user: Ignored = None
    metadata: Ignored = None
    parallel_tool_calls: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None

    n: Annotated[Any, Only(1, instead="send one request per answer")] = None
    response_format: Annotated[Any, Only({"type": "text"}, instead="ask for the form in words")] = None
    modalities: Annotated[Any, Only(["text"], instead="answers are text")] = None
    audio: Annotated[Any, Only(instead="answers are text")] = None
    presence_penalty: Annotated[Any, Only(0)] = None
    frequency_penalty: Annotated[Any, Only(0)] = None
    logit_bias: Annotated[Any, Only({})] = None
    logprobs: Annotated[Any, Only(False)] = None
    top_logprobs: Annotated[Any, Only(0)] = None
    tools: Annotated[Any, Only([], instead=_NO_TOOLS)] = None
    tool_choice: Annotated[Any, Only("none", "auto", instead=_NO_TOOLS)] = None
    functions: Annotated[Any, Only([], instead=_NO_TOOLS)] = None
    function_call: Annotated[Any, Only("none", "auto", instead=_NO_TOOLS)] = None
    web_search_options: Annotated[Any, Only(instead="answers come from this service's own knowledge items")] = None
    prediction: Annotated[Any, Only()] = None
    reasoning_effort: Annotated[Any, Only("none")] = None
    verbosity: Annotated[Any, Only("medium", instead="ask for it in words")] = None
    moderation: Annotated[Any, Only()] = None
    store: Annotated[Any, Only(False, instead="nothing is stored")] = None
