"""Every error has one shape, the right status, and says what to change; none costs model work."""

from __future__ import annotations

import io
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image
from support.serving import LIMITS, UNITS, Served, World, as_base64, check_error, image_of, wait_until
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
ASK = {"question": "What?"}

# body of /v1/answer, status, type, field
CASES: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    "no question": ({}, 422, "missing_field", "question"),
    "question of another type": ({"question": 3}, 422, "invalid_field", "question"),
    "empty question": ({"question": " \n"}, 422, "empty_text", "question"),
    "long question": ({"question": "x" * 501}, 422, "text_too_long", "question"),
    "no image": (ASK, 422, "missing_field", "image"),
    "no image in rag": ({**ASK, "mode": "rag"}, 422, "missing_field", "image"),
    "empty image": ({**ASK, "image": ""}, 422, "image_empty", "image"),
    "not base64": ({**ASK, "image": "?"}, 422, "invalid_image", "image"),
    "a URL": ({**ASK, "image": "https://example.org/a.png"}, 422, "invalid_image", "image"),
    "a data URI that is not base64": ({**ASK, "image": "data:image/png,abc"}, 422, "invalid_image", "image"),
    "not an image": ({**ASK, "image": as_base64(b"hello " * 20)}, 422, "image_unreadable", "image"),
    "truncated image": ({**ASK, "image": truncated()}, 422, "image_truncated", "image"),
    "truncated image, unsearched": ({**ASK, "mode": "none", "image": truncated()}, 422, "image_truncated", "image"),
    "animation": ({**ASK, "image": ANIMATED}, 422, "image_animated", "image"),
    "SVG": ({**ASK, "image": SVG}, 422, "image_svg", "image"),
    "20,000 x 20,000": ({**ASK, "image": png_header(20_000, 20_000)}, 422, "image_too_many_pixels", "image"),
    "top_k 0": ({**ASK, "image": image_of(1), "top_k": 0}, 422, "invalid_field", "top_k"),
    "top_k 10,000": ({**ASK, "image": image_of(1), "top_k": 10_000}, 422, "invalid_field", "top_k"),
    "top_k as text": ({**ASK, "image": image_of(1), "top_k": "3"}, 422, "invalid_field", "top_k"),
    "unknown mode": ({**ASK, "mode": "magic"}, 422, "invalid_field", "mode"),
    "unknown field": ({**ASK, "mode": "none", "colour": 1}, 422, "unknown_field", "colour"),
    "language": ({**ASK, "image": image_of(1), "language": "*"}, 422, "invalid_field", "language"),
    "language without items": ({**ASK, "image": image_of(1), "language": "fr"}, 422, "nothing_to_search", "language"),
    "many new tokens": ({**ASK, "mode": "none", "max_new_tokens": 401}, 422, "invalid_field", "max_new_tokens"),
    "no new tokens": ({**ASK, "mode": "none", "max_new_tokens": 0}, 422, "invalid_field", "max_new_tokens"),
    "prompt too long": ({**ASK, "image": image_of(1), "mode": "rag", "top_k": 20}, 422, "prompt_too_long", "question"),
}


@pytest.mark.parametrize("name", CASES)
def test_wrong_question(served: Served, name: str) -> None:
    body, status, type, field = CASES[name]
    check_error(served.client.post("/v1/answer", json=body), status, type, field)


def test_messages_hold_both_numbers(served: Served) -> None:
    def message(name: str) -> str:
        return str(served.client.post("/v1/answer", json=CASES[name][0]).json()["error"]["message"])

    assert "501" in message("long question")
    assert "500" in message("long question")
    assert "1 to 20" in message("top_k 10,000")
    assert "50,000,000" in message("20,000 x 20,000")
    assert "1000" in message("prompt too long")


@pytest.mark.parametrize(
    "body",
    [b"{", b"question", b'{"question": "\xff"}', b"[" * 100_000, b'{"question": "a", "top_k": ' + b"9" * 5_000 + b"}"],
)
def test_not_json(served: Served, body: bytes) -> None:
    response = served.client.post("/v1/answer", content=body, headers={"Content-Type": "application/json"})
    check_error(response, 400, "invalid_json", None)


def test_half_a_surrogate_pair(served: Served) -> None:
    body = b'{"question": "\\ud800", "mode": "none"}'
    response = served.client.post("/v1/answer", content=body, headers={"Content-Type": "application/json"})
    check_error(response, 422, "invalid_field", "question")


@pytest.mark.parametrize("body", [b"", b"null", b"[1]", b'"x"'])
def test_no_object(served: Served, body: bytes) -> None:
    response = served.client.post("/v1/answer", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["error"]["type"] in ("missing_body", "invalid_body")


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", ""])
def test_another_content_type(served: Served, kind: str) -> None:
    response = served.client.post("/v1/answer", content=b"{}", headers={"Content-Type": kind})
    assert "application/json" in check_error(response, 415, "unsupported_media_type", None)


def test_a_declared_body_of_100_mb_is_refused_unread(served: Served) -> None:
    start = time.monotonic()
    host, port = served.client.base_url.host, served.client.base_url.port
    with socket.create_connection((host, port), timeout=10) as s:  # headers alone: nothing of the body is sent
        s.sendall(b"POST /v1/answer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        s.sendall(b"Content-Length: 104857600\r\n\r\n")
        reply = "".join(piece.decode() for piece in iter(lambda: s.recv(65_536), b""))  # until it closes
    assert reply.startswith("HTTP/1.1 413")
    assert "104,857,600" in reply
    assert "2,000,000" in reply
    assert time.monotonic() - start < 2


def test_a_chunked_body_is_counted(served: Served) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"question": "'
        for _ in range(300):
            yield b"x" * 10_000

    response = httpx.post(
        f"{served.url}/v1/answer", content=chunks(), headers={"Content-Type": "application/json"}, timeout=20
    )
    check_error(response, 413, "body_too_large", None)


def test_a_body_of_just_the_limit_passes_the_guard(served: Served) -> None:
    body = b'{"question": "' + b"x" * (LIMITS["max_body_bytes"] - 16) + b'"}'
    response = served.client.post("/v1/answer", content=body, headers={"Content-Type": "application/json"})
    check_error(response, 422, "text_too_long", "question")


def test_unknown_paths_and_methods(served: Served) -> None:
    check_error(served.client.get("/v2/answer"), 404, "unknown_path", None)
    check_error(served.client.post("/v1/nothing", json={}), 404, "unknown_path", None)
    response = served.client.get("/v1/answer")
    assert "POST" in check_error(response, 405, "method_not_allowed", None)
    assert response.headers["allow"] == "POST"


def test_a_fault_of_ours_shows_nothing_and_is_in_the_log(served: Served, world: World) -> None:
    shard = world.config.folder("items") / f"{UNITS[1]}.parquet"
    moved = shard.rename(shard.with_suffix(".away"))
    headers = {"X-Request-ID": "fault-1"}
    try:
        response = served.client.get(f"/v1/items/{world.ids[-1]}", headers=headers)
    finally:
        moved.rename(shard)
    message = check_error(response, 500, "internal", None)
    assert shard.name not in message
    assert response.headers["x-request-id"] == "fault-1"
    wait_until(lambda: "fault-1 -- request failed" in served.log.read_text(), 10, served)
    wait_until(lambda: "FileNotFoundError" in served.log.read_text(), 10, served)
    assert served.client.get(f"/v1/items/{world.ids[-1]}").status_code == 200


def test_wrong_questions_are_cheap(served: Served) -> None:
    """A refused request asks no model: it takes less than the retriever alone would."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        served.client.post("/v1/answer", json=CASES["20,000 x 20,000"][0])
        times.append(time.perf_counter() - start)
    assert sorted(times)[10] < 0.05
