import os

import pytest

from comem_ray.config import FetchConfig
from comem_ray.knowledge.fetch import Fetcher
from comem_ray.knowledge.images import ImageError
from comem_ray.knowledge.sources.image_bytes import image_bytes

DATA = b"\x89PNG data"


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "images"
    (inside / "sub").mkdir(parents=True)
    (inside / "a.png").write_bytes(DATA)
    (inside / "sub" / "b é.png").write_bytes(DATA)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    (inside / "loop.png").symlink_to("loop.png")
    (inside / "large.png").write_bytes(bytes(5_000))
    os.mkfifo(inside / "pipe.png")
    return inside


def load(image: str | bytes, folder) -> bytes:
    return image_bytes(image, folder, Fetcher(FetchConfig(enabled=False), 1_000), 1_000)


@pytest.mark.parametrize(
    "image",
    [
        DATA,
        "a.png",
        "./sub/../a.png",
        "sub/b é.png",
        "data:image/png;base64,iVBORyBkYXRh",
        "DATA:;base64,iVBORyBk%59XRh",
        "data:;BASE64,iVBORy\nBkYXRh",
        "data:,%89PNG%20data",
    ],
)
def test_bytes_come_from_where_the_row_says(folder, image):
    assert load(image, folder) == DATA


@pytest.mark.parametrize(
    ("image", "reason", "retryable"),
    [
        ("missing.png", "image_missing", True),
        ("sub", "image_missing", True),
        ("pipe.png", "image_missing", True),
        ("loop.png", "image_missing", True),
        ("n" * 5_000, "image_missing", True),
        ("../secret.png", "image_outside", False),
        ("sub/../../secret.png", "image_outside", False),
        ("/etc/hostname", "image_outside", False),
        ("link.png", "image_outside", False),
        ("//example.org/a.png", "image_outside", False),
        ("large.png", "image_too_many_bytes", False),
        ("data:image/png;base64", "image_data_uri", False),
        ("data:image/png;base64,@@@@", "image_data_uri", False),
        ("data:image/png;base64,abc", "image_data_uri", False),
        ("http://example.org/a.png", "fetch_disabled", True),
    ],
)
def test_what_cannot_be_loaded_has_a_reason(folder, image, reason, retryable):
    with pytest.raises(ImageError) as caught:
        load(image, folder)
    assert (caught.value.reason, caught.value.retryable) == (reason, retryable)


def test_another_scheme_is_refused(folder):
    with pytest.raises(ImageError) as caught:
        image_bytes("file:///etc/hostname", folder, Fetcher(FetchConfig(), 1_000), 1_000)
    assert caught.value.reason == "fetch_scheme"
