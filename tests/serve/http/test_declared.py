"""What a request says of its body is checked before the body is read."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from serve.http.declared import refuse_declared
from serve.http.errors import ApiError

JSON = ("content-type", "application/json")


def refusal(method: str, *headers: tuple[str, str]) -> tuple[int, str]:
    with pytest.raises(ApiError) as raised:
        refuse_declared(method, Headers(raw=[(n.encode(), v.encode("latin-1")) for n, v in headers]), 1_000)
    return raised.value.status_code, raised.value.type


@pytest.mark.parametrize("length", ["", "-1", "+5", "5, 5", "0x10", "1e3", " 5", "\xb2", "5\n"])
def test_a_length_that_is_not_a_number(length: str) -> None:
    assert refusal("POST", JSON, ("content-length", length)) == (400, "invalid_header")


def test_two_lengths() -> None:
    assert refusal("POST", JSON, ("content-length", "5"), ("content-length", "5")) == (400, "invalid_header")


@pytest.mark.parametrize("length", ["1001", "9" * 15, "9" * 5_000])
def test_a_length_beyond_the_limit(length: str) -> None:
    assert refusal("POST", JSON, ("content-length", length)) == (413, "body_too_large")


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "identity, gzip", "x" * 5_000])
def test_a_compressed_body(encoding: str) -> None:
    assert refusal("POST", JSON, ("content-encoding", encoding)) == (415, "unsupported_encoding")


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "", "application/jsonx", "x" * 5_000]
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_another_content_type(method: str, kind: str) -> None:
    assert refusal(method, ("content-type", kind)) == (415, "unsupported_media_type")
    assert refusal(method) == (415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_of_a_right_length(kind: str) -> None:
    raw = [(b"content-type", kind.encode()), (b"content-length", b"1000"), (b"content-encoding", b"identity")]
    refuse_declared("POST", Headers(raw=raw), 1_000)
    refuse_declared("GET", Headers(raw=[]), 1_000)
