"""JSON is read strictly, and in bounded time and memory."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest

from serve.http.errors import ApiError
from serve.http.json_body import MAX_DEPTH, MAX_VALUES, load_json


@pytest.mark.parametrize(
    "value",
    [
        {"text": "a", "n": [1, -2.5, 1e300, True, None, {}]},
        {"emoji": "\U0001f600 ü", "escaped": '"\\\n'},
        [],
        "text",
        0,
        {"n": 10**99},
        {"x": "commas, colons: and [brackets]" * 1_000},
    ],
)
def test_what_json_is(value: Any) -> None:
    assert load_json(json.dumps(value).encode()) == value
    assert load_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert load_json(b"\xef\xbb\xbf" + json.dumps(value).encode()) == value


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "Expecting value at character 0"),
        (b"{", "at character 1"),
        (b'{"a": 1,}', "at character 8"),
        (b"{'a': 1}", "at character 1"),
        (b'{"a": 1} {"b": 2}', "Extra data at character 9"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8 at byte 0"),
        (b'{"a": "\n"}', "at character 7"),
        (b'{"a": 1, "a": 1}', "the field 'a' comes twice"),
        (b'[{"b": {"a": 1, "a": 2}}]', "the field 'a' comes twice"),
        (b'{"a": NaN}', "NaN is not"),
        (b'{"a": -Infinity}', "-Infinity is not"),
        (b'{"a": 1e999}', "1e999 is beyond"),
        (b'{"a": ' + b"9" * 101 + b"}", "more than 100 digits"),
        (b'{"a": 0.' + b"9" * 5_000 + b"}", "more than 100 digits"),
        (nested(MAX_DEPTH + 1), "nested more than 64 deep"),
        (nested(5_000), "nested more than 64 deep"),
        (b'{"a":' * 5_000, "nested more than 64 deep"),
        (b"[" + b"[]," * MAX_VALUES + b"0]", "more than 100,000 values"),
    ],
)
def test_what_it_is_not(data: bytes, words: str) -> None:
    with pytest.raises(ApiError, match=words) as raised:
        load_json(data)
    assert (raised.value.status_code, raised.value.type) == (400, "invalid_json")


def test_just_not_too_deep() -> None:
    assert load_json(nested(MAX_DEPTH))


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (rb'{"a": "\ud800"}', "a"),
        (rb'{"a": [{"b": "x\udfff"}]}', "a.0.b"),
        (rb'{"a": {"\ud800": 1}}', "a"),
        (rb'{"\ud800": 1}', None),
        (rb'"\udc00\ud800"', None),
    ],
)
def test_half_a_surrogate_pair(data: bytes, field: str | None) -> None:
    with pytest.raises(ApiError) as raised:
        load_json(data)
    assert (raised.value.status_code, raised.value.type, raised.value.field) == (422, "invalid_field", field)
    raised.value.response()  # can be written


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 20_000_000,
        b"[" + b"[]," * 6_600_000 + b"0]",
        b"1" * 20_000_000,
        b'{"a": "' + b"A" * 20_000_000 + b'"}',
        b'{"a": "\\u0041' + b"A" * 20_000_000 + b'"}',
        b"{" + b",".join(b'"%d":1' % n for n in range(90_000)) + b',"0":1}',
    ],
)
def test_20_mb_of_anything_are_quick(data: bytes) -> None:
    start = time.monotonic()
    with suppress(ApiError):
        load_json(data)
    assert time.monotonic() - start < 1
