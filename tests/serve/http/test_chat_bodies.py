"""The body of a chat: what of OpenAI's API is taken, and what is refused by its name."""

from __future__ import annotations

from typing import Any, get_args

import jsonschema
import pytest
from openai.types.chat import completion_create_params
from pydantic import ValidationError

from serve.http.chat_bodies import ChatRequest, Only

BODY: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Which city?"}]}
FUNCTION = {"type": "function", "function": {"name": "f"}}

HARMLESS: dict[str, list[Any]] = {
    "n": [1],
    "presence_penalty": [0, 0.0],
    "frequency_penalty": [0],
    "logprobs": [False],
    "top_logprobs": [0],
    "logit_bias": [{}],
    "tools": [[]],
    "tool_choice": ["none", "auto"],
    "functions": [[]],
    "function_call": ["none"],
    "response_format": [{"type": "text"}],
    "modalities": [["text"]],
    "store": [False],
    "parallel_tool_calls": [True, False],
    "metadata": [{"a": "b"}],
    "user": ["me"],
    "service_tier": ["auto"],
    "stream_options": [{"include_usage": True}, {}],
    "stop": ["a", ["a", "b", "c", "d"]],
    "temperature": [0, 2, 0.7],
    "seed": [-1, 2**62],
    "comem": [{}, {"mode": "none"}],
}
UNSUPPORTED: dict[str, list[Any]] = {
    "n": [2, True, "1"],
    "presence_penalty": [0.5, False],
    "frequency_penalty": [-1],
    "logprobs": [True, 0],
    "logit_bias": [{"50256": -100}],
    "tools": [[FUNCTION]],
    "tool_choice": ["required", FUNCTION],
    "functions": [[{"name": "f"}]],
    "response_format": [{"type": "json_object"}, {"type": "json_schema", "json_schema": {}}],
    "modalities": [["text", "audio"]],
    "audio": [{"voice": "alloy", "format": "wav"}],
    "web_search_options": [{}],
    "prediction": [{"type": "content", "content": "a"}],
    "reasoning_effort": ["high"],
    "store": [True],
}
INVALID: dict[str, list[Any]] = {
    "model": [None, 3],
    "messages": [None, [], "Hello", [3], [{"role": "tool", "content": "a"}], [{"role": "user", "content": 3}]],
    "temperature": [-0.1, 2.1, "0", float("nan"), float("inf")],
    "top_p": [0, 1.1],
    "max_tokens": [0, 1.5, "9", True],
    "stop": ["", [""], ["a"] * 5, 3, "a" * 201],
    "seed": [1.5, 2**63],
    "stream": ["true", 1],
    "timeout": [0, -1, "3"],
    "comem": [{"mode": "magic"}, {"top_k": 0}, {"language": "English"}, []],
}


def faults(**fields: Any) -> list[tuple[str, str]]:
    """Type and field of each fault."""
    try:
        ChatRequest.model_validate({**BODY, **fields})
    except ValidationError as error:
        return [(e["type"], ".".join(map(str, e["loc"]))) for e in error.errors()]
    return []


@pytest.mark.parametrize("field", HARMLESS)
def test_defaults_and_what_is_supported_are_taken(field: str) -> None:
    assert [faults(**{field: value}) for value in [*HARMLESS[field], None]] == [[]] * (len(HARMLESS[field]) + 1)


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_what_is_not_supported_is_refused_by_name(field: str) -> None:
    for value in UNSUPPORTED[field]:
        assert faults(**{field: value}) == [("unsupported", field)]


@pytest.mark.parametrize("field", INVALID)
def test_values_that_cannot_be(field: str) -> None:
    for value in INVALID[field]:
        assert all(name.split(".")[0] == field for _, name in faults(**{field: value}))
        assert faults(**{field: value})


def test_every_field_of_openais_api_is_known() -> None:
    """So that none is refused as a typing error."""
    theirs = {
        name for params in get_args(completion_create_params.CompletionCreateParams) for name in params.__annotations__
    }
    for params in get_args(completion_create_params.CompletionCreateParams):
        theirs |= {name for base in params.__orig_bases__ for name in getattr(base, "__annotations__", {})}
    assert {"messages", "tools", "seed", "stream"} <= theirs
    assert theirs <= ChatRequest.model_fields.keys()


def test_unknown_fields_are_refused_by_name() -> None:
    assert faults(colour="red") == [("extra_forbidden", "colour")]
    assert faults(comem={"k": 3}) == [("extra_forbidden", "comem.k")]
    message = {"role": "user", "content": [{"type": "text", "text": "a", "cache": 1}]}
    assert faults(messages=[message]) == [("extra_forbidden", "messages.0.content.0.cache")]


def test_parts_of_other_kinds_are_refused_by_name() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]
    assert ("literal_error", "messages.0.content.1.type") in faults(messages=[{"role": "user", "content": parts}])


def test_a_calls_of_tools_in_a_message_is_refused() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    assert faults(messages=[message]) == [("unsupported", "messages.0.tool_calls")]


def test_what_to_do_instead_is_in_the_message() -> None:
    with pytest.raises(ValidationError, match=r'only "none" or "auto" is supported: this service calls no tools'):
        ChatRequest.model_validate({**BODY, "tool_choice": "required"})
    with pytest.raises(ValidationError, match="it is not supported: leave it out"):
        ChatRequest.model_validate({**BODY, "prediction": 1})


def test_the_schema_says_what_is_taken() -> None:
    schema = ChatRequest.model_json_schema()
    for example in schema["examples"]:
        jsonschema.validate(example, schema)
        ChatRequest.model_validate(example)
    for values, valid in ((HARMLESS, True), (UNSUPPORTED, False)):
        for field, value in ((f, v) for f in values for v in values[f]):
            assert jsonschema.Draft202012Validator(schema).is_valid({**BODY, field: value}) == valid, (field, value)


@pytest.mark.parametrize(("value", "equal"), [(0, True), (0.0, True), (False, False), ("0", False), (None, True)])
def test_values_are_compared_as_json_has_them(value: Any, equal: bool) -> None:
    if equal:
        Only(0).check(value)
    else:
        with pytest.raises(ValueError, match="only 0"):
            Only(0).check(value)
