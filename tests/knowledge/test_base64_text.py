"""One rule for base64, at ingest and in the API (tests/serve/test_checks.py asks the API the same)."""

import base64
import os

import pytest

from comem_ray.knowledge.base64_text import decode_base64, decode_data_uri, is_data_uri

DATA = os.urandom(1_000)
TEXT = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        base64.encodebytes(DATA).decode(),
        "\r\n".join(TEXT[n : n + 64] for n in range(0, len(TEXT), 64)) + "\r\n",
        " \t" + TEXT + "\n",
        TEXT[:-2] + "\n" + TEXT[-2:],
    ],
)
def test_line_ends_and_spaces_do_not_count(text):
    assert decode_base64(text) == DATA
    assert decode_data_uri("data:image/png;base64," + text) == DATA


@pytest.mark.parametrize("length", range(5))
def test_every_length_of_padding(length):
    assert decode_base64(base64.b64encode(bytes(length)).decode()) == bytes(length)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("AAA", "3 characters, want a multiple of 4"),
        ("AAAA=", "multiple of 4"),
        ("A===", "lacks the ="),
        ("AA=A", "'=' at character 3"),
        ("AA-_", "URL-safe alphabet: write \\+ for -"),
        ("/home/me/a.png", r"'\.' at character 11"),
        ("AAAé", r"'\\xe9' at character 4"),
    ],
)
def test_the_message_names_the_fault(text, words):
    with pytest.raises(ValueError, match=words):
        decode_base64(text)


@pytest.mark.parametrize(
    "uri", ["data:;base64,QUJD", "DATA:image/png;charset=utf-8;BASE64,QU JD", "data:x/y;base64 ,%51%55JD"]
)
def test_data_uris(uri):
    assert is_data_uri(uri)
    assert decode_data_uri(uri) == b"ABC"


def test_a_data_uri_without_base64_is_percent_escaped():
    assert decode_data_uri("data:,A%42C") == b"ABC"
    with pytest.raises(ValueError, match="does not say ;base64"):
        decode_data_uri("data:,A%42C", escaped=False)
    for uri in ("data:image/png;base64", "data:" + "x" * 1_000 + ",QUJD"):
        with pytest.raises(ValueError, match="no comma"):
            decode_data_uri(uri)
