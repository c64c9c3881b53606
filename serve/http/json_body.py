"""JSON as it comes in, read strictly: UTF-8, no key twice, no NaN or infinity, no endless numbers, not too many values.

What Python's parser would take in silence, or take a gigabyte for, is refused with a sentence.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from serve.http.errors import FIELD_CHARS, ApiError

MAX_VALUES = 100_000  # 20 MB of "[[[" would be 7 million lists and 0.5 GB
MAX_DEPTH = 64
MAX_DIGITS = 100
_MARKS = (b"[", b"{", b",", b":")
_SURROGATE = re.compile("[\ud800-\udfff]")


class JsonRoute(APIRoute):
    """A route whose body is read by `load_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict


class _StrictRequest(Request):
    async def json(self) -> Any:
        return load_json(await self.body())


def load_json(data: bytes) -> Any:
    """The value of a JSON text. Raises ApiError: 400, or 422 for half a surrogate pair in a field."""
    if sum(data.count(mark) for mark in _MARKS) > MAX_VALUES:
        raise _invalid(f"it has more than {MAX_VALUES:,} values")
    try:
        value = json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_number,
        )
    except UnicodeDecodeError as error:
        raise _invalid(f"it is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ApiError(400, "invalid_json", f"the body is not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise _too_deep() from error
    if isinstance(value, (dict, list)):
        _refuse_depth(value)
    if b"\\u" in data:
        _refuse_surrogates(value)
    return value


def _invalid(why: str) -> ApiError:
    return ApiError(400, "invalid_json", f"the body cannot be read as JSON: {why}")


def _too_deep() -> ApiError:
    return _invalid(f"it is nested more than {MAX_DEPTH} deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise _invalid(f"the field {key[:100]!r} comes twice in one object")
        fields[key] = value
    return fields


def _constant(name: str) -> Any:
    raise _invalid(f"{name} is not a JSON number")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _invalid(f"it holds a number of more than {MAX_DIGITS} digits")
    return int(digits)


def _number(digits: str) -> float:
    if len(digits) > MAX_DIGITS:
        raise _invalid(f"it holds a number of more than {MAX_DIGITS} digits")
    number = float(digits)
    if not math.isfinite(number):
        raise _invalid(f"{digits} is beyond the largest number")
    return number


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return [(str(n), part) for n, part in enumerate(value)] if isinstance(value, list) else []


def _refuse_depth(value: Any, left: int = MAX_DEPTH) -> None:
    # Makes no object of its own per value: Python would collect garbage again and again.
    if left == 0:
        raise _too_deep()
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, (dict, list)):
            _refuse_depth(part, left - 1)


def _refuse_surrogates(value: Any, path: tuple[str, ...] = ()) -> None:
    """Raises ApiError for text that cannot be written as UTF-8, and names its field."""
    texts = [value] if isinstance(value, str) else list(value) if isinstance(value, dict) else []
    if any(_SURROGATE.search(text) for text in texts):
        field = ".".join(path)[:FIELD_CHARS] or None
        raise ApiError(422, "invalid_field", f"{field or 'the body'} holds half a surrogate pair: remove it", field)
    for name, part in _parts(value):
        _refuse_surrogates(part, (*path, name))
