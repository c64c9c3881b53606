import os
import re
import unicodedata

import pytest

from comem_ray.config import FetchConfig
from comem_ray.knowledge.fetch import Fetcher
from comem_ray.knowledge.images import ImageError
from comem_ray.knowledge.sources.image_bytes import image_bytes, is_local_file

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
        ("//example.org/a.png", "fetch_scheme", False),
        ("file:///etc/hostname", "fetch_scheme", False),
        ("file:/etc/hostname", "fetch_scheme", False),
        ("s3://bucket/a.png", "fetch_scheme", False),
        ("GS://bucket/a.png", "fetch_scheme", False),
        ("hdfs://node/a.png", "fetch_scheme", False),
        ("ftp://example.org/a.png", "fetch_scheme", False),
        ("https:/example.org/a.png", "fetch_scheme", False),
        ("unknown+scheme://a.png", "fetch_scheme", False),
        ("C:\\images\\a.png", "image_outside", False),
        ("\\\\server\\a.png", "image_outside", False),
        ("www.example.org/a.png", "image_missing", True),
        ("File:missing.png", "image_missing", True),
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


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("//example.org/a.png", "write https: before it"),
        ("file:///etc/hostname", "write the path alone"),
        ("s3://bucket/a.png", "object store, which is not read"),
        ("https:/example.org/a.png", "want https://host/path"),
        ("ftp://example.org/a.png", "want http or https"),
        ("D:/a.png", "path of Windows"),
        ("/etc/hostname", "from that folder on"),
        ("www.example.org/a.png", "wants https:// before it"),
        ("sub\\a.png", "write / between folders"),
        ("data:image/png;base64,iVBORyBk-XRh", "URL-safe alphabet"),
        ("data:image/png;base64,iVBORyBkYXR", "multiple of 4"),
    ],
)
def test_the_reason_says_what_would_be_right(folder, image, words):
    with pytest.raises(ImageError, match=re.escape(words)):
        load(image, folder)


def test_a_name_with_a_colon_is_a_name(folder):
    for name in ("File:Oak.png", "a: b.png", "2:1.png"):
        (folder / name).write_bytes(DATA)
        assert load(name, folder) == DATA


def test_only_paths_are_local_files():
    assert all(is_local_file(name) for name in ("a.png", "sub/b é.png", "File:Oak.png", "../a.png", "/a.png"))
    assert not any(is_local_file(name) for name in ("data:,x", "HTTPS://e.org/a", "//e.org/a", "s3://b/a", "file:///a"))


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Fjäll/Mañana é.png") for form in ("NFC", "NFD"))
MIXED = COMPOSED.partition("/")[0] + "/" + DECOMPOSED.partition("/")[2]


@pytest.mark.parametrize("row", [COMPOSED, DECOMPOSED, MIXED])
@pytest.mark.parametrize("disk", [COMPOSED, DECOMPOSED, MIXED])
def test_a_name_may_be_composed_or_decomposed(folder, row, disk):
    (folder / disk).parent.mkdir()
    (folder / disk).write_bytes(DATA)
    assert load(row, folder) == DATA


def test_another_spelling_leads_out_of_the_folder_no_more_than_the_first(folder, tmp_path):
    (tmp_path / DECOMPOSED.rpartition("/")[2]).write_bytes(b"secret")
    with pytest.raises(ImageError) as caught:
        load("../" + COMPOSED.rpartition("/")[2], folder)
    assert caught.value.reason == "image_outside"
