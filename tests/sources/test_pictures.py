import os

import pytest

from comem_ray.config import Fetch
from comem_ray.fetch import Fetcher
from comem_ray.images import PictureError
from comem_ray.sources.pictures import picture_bytes

DATA = b"\x89PNG data"


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "pictures"
    (inside / "sub").mkdir(parents=True)
    (inside / "a.png").write_bytes(DATA)
    (inside / "sub" / "b é.png").write_bytes(DATA)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    (inside / "loop.png").symlink_to("loop.png")
    (inside / "large.png").write_bytes(bytes(5_000))
    os.mkfifo(inside / "pipe.png")
    return inside


def load(picture: str | bytes, folder) -> bytes:
    return picture_bytes(picture, folder, Fetcher(Fetch(enabled=False), 1_000), 1_000)


@pytest.mark.parametrize(
    "picture",
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
def test_bytes_come_from_where_the_row_says(folder, picture):
    assert load(picture, folder) == DATA


@pytest.mark.parametrize(
    ("picture", "reason", "retryable"),
    [
        ("missing.png", "picture_missing", True),
        ("sub", "picture_missing", True),
        ("pipe.png", "picture_missing", True),
        ("loop.png", "picture_missing", True),
        ("n" * 5_000, "picture_missing", True),
        ("../secret.png", "picture_outside", False),
        ("sub/../../secret.png", "picture_outside", False),
        ("/etc/hostname", "picture_outside", False),
        ("link.png", "picture_outside", False),
        ("//example.org/a.png", "picture_outside", False),
        ("large.png", "picture_too_many_bytes", False),
        ("data:image/png;base64", "picture_data_uri", False),
        ("data:image/png;base64,@@@@", "picture_data_uri", False),
        ("data:image/png;base64,abc", "picture_data_uri", False),
        ("http://example.org/a.png", "fetch_disabled", True),
    ],
)
def test_what_cannot_be_loaded_has_a_reason(folder, picture, reason, retryable):
    with pytest.raises(PictureError) as caught:
        load(picture, folder)
    assert (caught.value.reason, caught.value.retryable) == (reason, retryable)


def test_another_scheme_is_refused(folder):
    with pytest.raises(PictureError) as caught:
        picture_bytes("file:///etc/hostname", folder, Fetcher(Fetch(), 1_000), 1_000)
    assert caught.value.reason == "fetch_scheme"
