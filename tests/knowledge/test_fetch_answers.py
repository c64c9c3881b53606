"""Statuses, bodies and redirects without a connection; tests/knowledge/test_fetch.py asks a real server."""

import io

import numpy as np
import pytest
from PIL import Image

from comem_ray.knowledge.fetch_answers import (
    FetchError,
    ends_early,
    escape_stray_percents,
    page_kind,
    redirect_target,
    refuse_page,
    status_error,
)
from comem_ray.knowledge.image_rules import FORMATS


def encoded(kind: str, size: tuple[int, int] = (40, 30)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("content_type", ["image/png", "text/html", "application/json", ""])
def test_no_image_is_taken_for_a_page_whatever_its_type(kind, content_type):
    for size in ((40, 30), (8_224, 2), (2, 2)):
        refuse_page(encoded(kind, size), {"Content-Type": content_type})


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"<!DOCTYPE HTML>", "an HTML page"),
        (b"\xef\xbb\xbf\r\n<HTML>", "an HTML page"),
        (b"<!-- a comment --><html>", "an HTML page"),
        (b"<!doctype html><title>Wait</title><svg/>", "an HTML page"),
        (b'{"a": 1}', "JSON"),
        (b'{"icon": "<svg/>"}', "JSON"),
        (b"<?xml version='1.0'?><Error/>", "XML"),
        (b"Access denied", "text"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", None),
        (b"<?xml version='1.0'?><!-- a b --><svg/>", None),
        (b"imageimage" * 500, None),
        (b"\x00\x01\x02 random bytes", None),
    ],
)
def test_kinds_of_pages(data, kind):
    assert page_kind(data) == kind


def test_a_declared_type_counts_where_the_bytes_are_no_image():
    assert page_kind(b"imageimage", "text/plain; charset=utf-8") == "text"
    assert page_kind(bytes(range(200)), "Text/HTML") == "text"
    assert page_kind(bytes(range(200)), "image/jpeg") is None


def test_statuses():
    assert not any(status_error(status, 0).retryable for status in (400, 404, 405, 410, 304))
    assert all(status_error(status, 0).retryable for status in (401, 403, 407, 408, 421, 423, 425, 429, 451, 500, 511))
    for status in (401, 403):
        assert "ingest.fetch.user_agent" in status_error(status, 0).detail
    assert "captive portal" in status_error(511, 0).detail
    assert status_error(503, 7).wait_s == 7


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_that_ends_early(kind):
    data = encoded(kind)
    assert not ends_early(data)
    assert not ends_early(data + b"\n")
    assert ends_early(data[:-20]) == (kind in ("JPEG", "PNG"))


def test_percents():
    assert escape_stray_percents("a%20b%c%3f%") == "a%20b%25c%3f%25"


def test_redirects():
    base = "https://example.org/a/b.jpg"
    assert redirect_target(base, "../c.jpg") == "https://example.org/c.jpg"
    assert (
        redirect_target(base, "//cdn.example.org/é.jpg".encode().decode("latin-1")) == "https://cdn.example.org/é.jpg"
    )
    with pytest.raises(FetchError) as caught:
        redirect_target(base, "http://[::1")
    assert caught.value.reason == "fetch_url"
