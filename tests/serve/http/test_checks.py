"""Requests that cannot be answered: a refusal names the field and what would be right, and costs no model work."""

from __future__ import annotations

import io
import struct
import time
import zlib
from typing import Any

import pytest
from PIL import Image
from support.serving import Served, as_base64, check_error, image_of
from support.tiny import image, png


def encoded(format: str, *more: Image.Image) -> str:
    out = io.BytesIO()
    image(1, 64, 64).save(out, format, save_all=bool(more), append_images=more)
    return as_base64(out.getvalue())


def png_header(width: int, height: int) -> str:
    """A PNG of that size, which is cheap: its pixels are one run of zeros, cut short."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return as_base64(b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))


def truncated() -> str:
    return as_base64(png(1, 300, 300)[:700])


SVG = as_base64(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>')
ANIMATED = encoded("GIF", image(2, 64, 64))
BODY = {"question": "What?"}

# body of /v1/answer, status, type, field
CASES: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    "no question": ({}, 422, "missing_field", "question"),
    "question of another type": ({"question": 3}, 422, "invalid_field", "question"),
    "empty question": ({"question": " \n"}, 422, "empty_text", "question"),
    "long question": ({"question": "x" * 501}, 422, "text_too_long", "question"),
    "no image": (BODY, 422, "missing_field", "image"),
    "no image in rag": ({**BODY, "mode": "rag"}, 422, "missing_field", "image"),
    "empty image": ({**BODY, "image": ""}, 422, "image_empty", "image"),
    "not base64": ({**BODY, "image": "?"}, 422, "invalid_image", "image"),
    "a URL": ({**BODY, "image": "https://example.org/a.png"}, 422, "invalid_image", "image"),
    "a data URI that is not base64": ({**BODY, "image": "data:image/png,abc"}, 422, "invalid_image", "image"),
    "not an image": ({**BODY, "image": as_base64(b"hello " * 20)}, 422, "image_unreadable", "image"),
    "truncated image": ({**BODY, "image": truncated()}, 422, "image_truncated", "image"),
    "truncated image, unsearched": (
        {**BODY, "mode": "none", "image": truncated()},
        422,
        "image_truncated",
        "image",
    ),
    "animation": ({**BODY, "image": ANIMATED}, 422, "image_animated", "image"),
    "SVG": ({**BODY, "image": SVG}, 422, "image_svg", "image"),
    "20,000 x 20,000": ({**BODY, "image": png_header(20_000, 20_000)}, 422, "image_too_many_pixels", "image"),
    "top_k 0": ({**BODY, "image": image_of(1), "top_k": 0}, 422, "invalid_field", "top_k"),
    "top_k 10,000": ({**BODY, "image": image_of(1), "top_k": 10_000}, 422, "invalid_field", "top_k"),
    "top_k as text": ({**BODY, "image": image_of(1), "top_k": "3"}, 422, "invalid_field", "top_k"),
    "unknown mode": ({**BODY, "mode": "magic"}, 422, "invalid_field", "mode"),
    "unknown field": ({**BODY, "mode": "none", "colour": 1}, 422, "unknown_field", "colour"),
    "language": ({**BODY, "image": image_of(1), "language": "*"}, 422, "invalid_field", "language"),
    "language by name": ({**BODY, "image": image_of(1), "language": "English"}, 422, "invalid_field", "language"),
    "language in mode none": ({**BODY, "mode": "none", "language": "français"}, 422, "invalid_field", "language"),
    "language of 5,000 characters": (
        {**BODY, "image": image_of(1), "language": "x" * 5_000},
        422,
        "invalid_field",
        "language",
    ),
    "language without items": (
        {**BODY, "image": image_of(1), "language": "fr"},
        422,
        "nothing_to_search",
        "language",
    ),
    "many new tokens": ({**BODY, "mode": "none", "max_new_tokens": 401}, 422, "invalid_field", "max_new_tokens"),
    "no new tokens": ({**BODY, "mode": "none", "max_new_tokens": 0}, 422, "invalid_field", "max_new_tokens"),
    "prompt too long": (
        {**BODY, "image": image_of(1), "mode": "rag", "top_k": 20},
        422,
        "prompt_too_long",
        "question",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_wrong_question(served: Served, name: str) -> None:
    body, status, type, field = CASES[name]
    check_error(served.http.post("/v1/answer", json=body), status, type, field)


def test_messages_hold_both_numbers(served: Served) -> None:
    def message(name: str) -> str:
        return str(served.http.post("/v1/answer", json=CASES[name][0]).json()["error"]["message"])

    assert "501" in message("long question")
    assert "500" in message("long question")
    assert "1 to 20" in message("top_k 10,000")
    assert "50,000,000" in message("20,000 x 20,000")
    assert "1000" in message("prompt too long")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("https://example.org/a.png", "this is a URL, send the image itself"),
        ("AAA-", "URL-safe alphabet: write + for -"),
        ("AAAAA", "5 characters, want a multiple of 4"),
        ("C:\\a.png", "':' at character 2 is not base64"),
        ("data:image/png,abc", "want data:image/jpeg;base64,..."),
        ("data:image/png;base64", "no comma"),
    ],
)
def test_what_is_not_base64_is_named(served: Served, image: str, words: str) -> None:
    response = served.http.post("/v1/retrieve", json={"image": image})
    assert words in check_error(response, 422, "invalid_image", "image")


def test_base64_with_line_ends_is_the_same_image(served: Served) -> None:
    """As `base64 FILE`, mail and Python's encodebytes write it; ingest reads it by the same function."""
    text = image_of(1)
    broken = "\r\n".join(text[n : n + 76] for n in range(0, len(text), 76)) + "\n"
    images = (text, broken, "data:image/png;base64," + broken, "DATA:image/png;BASE64," + text)
    replies = [served.http.post("/v1/retrieve", json={"image": image, "top_k": 3}).json() for image in images]
    assert {tuple(source["item_id"] for source in reply["sources"]) for reply in replies} == {
        tuple(source["item_id"] for source in replies[0]["sources"])
    }
    assert len(replies[0]["sources"]) == 3


@pytest.mark.parametrize("language", ["ES", " es ", "Es"])
def test_a_language_is_read_in_any_case(served: Served, language: str) -> None:
    body = {"image": image_of(1), "top_k": 3}
    want = served.http.post("/v1/retrieve", json={**body, "language": "es"}).json()["sources"]
    assert served.http.post("/v1/retrieve", json={**body, "language": language}).json()["sources"] == want


def test_an_underscore_and_a_hyphen_are_the_same_language(served: Served) -> None:
    body = {"image": image_of(1), "language": "zh_hans_cn"}
    message = check_error(served.http.post("/v1/retrieve", json=body), 422, "nothing_to_search", "language")
    assert "'zh-Hans-CN'" in message


def test_half_a_surrogate_pair(served: Served) -> None:
    body = b'{"question": "\\ud800", "mode": "none"}'
    response = served.http.post("/v1/answer", content=body, headers={"Content-Type": "application/json"})
    check_error(response, 422, "invalid_field", "question")


def test_wrong_questions_are_cheap(served: Served) -> None:
    """A refused request asks no model: it takes less than the retriever alone would."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        served.http.post("/v1/answer", json=CASES["20,000 x 20,000"][0])
        times.append(time.perf_counter() - start)
    assert sorted(times)[10] < 0.05


@pytest.mark.parametrize(
    ("body", "type", "field"),
    [
        ({}, "missing_field", "image"),
        ({"by": "image", "text": "a"}, "missing_field", "image"),
        ({"by": "both", "text": "a"}, "missing_field", "image"),
        ({"by": "text", "image": image_of(1)}, "missing_field", "text"),
        ({"text": ""}, "empty_text", "text"),
        ({"text": "a", "by": "smell"}, "invalid_field", "by"),
        ({"text": "a", "text_weight": 1.5}, "invalid_field", "text_weight"),
        ({"text": "a", "top_k": 21}, "invalid_field", "top_k"),
        ({"text": "a", "question": "b"}, "unknown_field", "question"),
    ],
)
def test_wrong_search(served: Served, body: dict[str, Any], type: str, field: str) -> None:
    check_error(served.http.post("/v1/retrieve", json=body), 422, type, field)
