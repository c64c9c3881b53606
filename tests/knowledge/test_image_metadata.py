"""Metadata that Pillow stumbles over costs no image; a broken critical chunk still does."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from support.ingesting import encoded

from comem_ray.config import ImageConfig
from comem_ray.knowledge.image_metadata import lean_jpeg, lean_png
from comem_ray.knowledge.images import ImageError, check_header, normalize_image, open_image

LIMITS = ImageConfig()
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
PNG, JPEG = encoded(IMAGE, "PNG"), encoded(IMAGE, "JPEG")
TEXT = b"x" * 1_200_000


def chunk(kind: bytes, body: bytes, checksum: int = 0) -> bytes:
    """A chunk of a PNG; `checksum` is what its checksum is off by."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ checksum)


def with_chunk(added: bytes, before: bytes = b"IDAT") -> bytes:
    start = PNG.index(before) - 4
    return PNG[:start] + added + PNG[start:]


def with_segments(marker: int, *bodies: bytes, data: bytes = JPEG) -> bytes:
    segments = (bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body for body in bodies)
    return data[:2] + b"".join(segments) + data[2:]


HARMLESS = {
    "iTXt of 1.2 MB": chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(TEXT)),
    "zTXt of 1.2 MB": chunk(b"zTXt", b"a\0\0" + zlib.compress(TEXT)),
    "plain text of 1.2 MB": chunk(b"tEXt", b"a\0" + TEXT),
    "a profile of 1.2 MB": chunk(b"iCCP", b"a\0\0" + zlib.compress(TEXT)),
    "a profile that is cut short": chunk(b"iCCP", b"a\0\0" + zlib.compress(TEXT)[:50]),
    "a comment's checksum": chunk(b"tEXt", b"a\0b", checksum=1),
    "a time's checksum": chunk(b"tIME", bytes(7), checksum=1),
    "transparency's checksum": chunk(b"tRNS", bytes(6), checksum=1),
    "a short pHYs": chunk(b"pHYs", b"\0"),
    "an unknown compression": chunk(b"zTXt", b"a\0\7" + TEXT[:9]),
    "100 comments": b"".join(chunk(b"zTXt", b"a\0\0" + zlib.compress(TEXT[:900_000])) for _ in range(100)),
}


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_a_png_keeps_its_pixels_whatever_its_metadata_holds(name, before):
    data = with_chunk(HARMLESS[name], before)
    assert check_header(data, 10_000).size == (40, 30)
    assert np.array_equal(np.asarray(open_image(data, 10_000)), np.asarray(IMAGE))
    stored = normalize_image(data, LIMITS).data
    assert stored == PNG
    Image.open(io.BytesIO(stored)).load()


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"IEND"])
def test_a_wrong_checksum_in_a_critical_chunk_is_damage(kind):
    start = PNG.index(kind) - 4
    end = start + 12 + int.from_bytes(PNG[start : start + 4])
    damaged = PNG[: end - 1] + bytes([PNG[end - 1] ^ 1]) + PNG[end:]
    for read in (
        lambda d: normalize_image(d, LIMITS),
        lambda d: open_image(d, 10_000),
        lambda d: check_header(d, 10_000),
    ):
        with pytest.raises(ImageError, match=kind.decode()) as caught:
            read(damaged)
        assert (caught.value.reason, caught.value.retryable) == ("image_unreadable", False)


def test_what_changes_pixels_stays():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(IMAGE, "PNG", exif=exif, transparency=(1, 2, 3))
    assert lean_png(data) == data
    assert open_image(data, 10_000).size == (30, 40)
    animation = encoded(IMAGE, "PNG", save_all=True, append_images=[IMAGE.rotate(9)])
    assert lean_png(animation) == animation


def test_what_needs_no_change_is_the_same_object():
    assert lean_png(PNG) is PNG
    assert lean_png(JPEG) is JPEG
    assert lean_jpeg(PNG) is PNG


@pytest.mark.parametrize(
    ("marker", "bodies"),
    [
        (0xE1, [b"Exif\0\0" + os.urandom(65_000)] * 3),
        (0xE1, [b"http://ns.adobe.com/xap/1.0/\0" + b"x" * 65_000] * 20),
        (0xED, [b"Photoshop 3.0\x008BIM\x04\x04\x09"]),
        (0xED, [b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x04ab"]),
        (0xE0, [b"JFIF\0"]),
        (0xE2, [b"ICC_PROFILE\0\1\5" + os.urandom(65_000)] * 5),
        (0xE2, [b"MPF\0MM\0*\xff\xff\xff\xff"]),
        (0xFE, [b"x" * 65_000] * 5),
    ],
)
def test_a_jpeg_keeps_its_pixels_whatever_its_segments_hold(marker, bodies):
    data = with_segments(marker, *bodies)
    assert np.array_equal(np.asarray(open_image(data, 10_000)), np.asarray(open_image(JPEG, 10_000)))
    Image.open(io.BytesIO(normalize_image(data, LIMITS).data)).load()


def test_a_jpeg_keeps_what_changes_its_pixels():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(IMAGE.convert("CMYK"), "JPEG", exif=exif)
    assert lean_jpeg(turned).count(b"Adobe\0") == turned.count(b"Adobe\0") == 1
    broken = with_segments(0xED, b"Photoshop 3.0\x008BIM\x04\x04\x09", data=turned)
    assert np.array_equal(np.asarray(open_image(broken, 10_000)), np.asarray(open_image(turned, 10_000)))
    assert open_image(broken, 10_000).size == (30, 40)


def test_a_jpeg_that_ends_in_its_metadata_stays_truncated():
    data = with_segments(0xE1, b"Exif\0\0" + bytes(60_000))[:30_000]
    with pytest.raises(ImageError) as caught:
        normalize_image(data, LIMITS)
    assert caught.value.reason in ("image_truncated", "image_unreadable")
