"""More than 8 bits: every range becomes the whole range of 8 bits, and what is unclear is refused, never black."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from support.ingesting import encoded

from comem_ray.config import ImageConfig
from comem_ray.knowledge.image_rules import ImageError
from comem_ray.knowledge.image_values import eight_bits
from comem_ray.knowledge.images import normalize_image, open_image

RAMP = np.linspace(0, 1, 40 * 30).reshape(30, 40)
LIMITS = ImageConfig()


def tiff(values: np.ndarray, **options: object) -> bytes:
    return encoded(Image.fromarray(values), "TIFF", **options)


def png16(*channels: np.ndarray) -> bytes:
    """A PNG of 16 bits per channel: grey, grey and alpha, RGB, or RGBA."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    pixels = np.stack(channels, axis=-1).astype(">u2")
    height, width, count = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[count], 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def grey(data: bytes) -> np.ndarray:
    """What is stored, as the later stages see it; an image opened without being stored looks the same."""
    opened = np.asarray(open_image(data, LIMITS.max_pixels), float)
    stored = np.asarray(open_image(normalize_image(data, LIMITS).data, LIMITS.max_pixels), float)
    assert np.abs(opened - stored).mean() < 2
    return opened[..., 0]


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        normalize_image(data, LIMITS)
    assert "8 bits per channel" in caught.value.detail
    return caught.value.reason


WHOLE_RANGES = {
    "float 0..1": tiff(RAMP.astype(np.float32)),
    "float 0..1 with a little ringing": tiff((RAMP * 1.04 - 0.02).astype(np.float32)),
    "float 0..255": tiff((255 * RAMP).astype(np.float32)),
    "float 0..65535": tiff((65_535 * RAMP).astype(np.float32)),
    "int32 0..1": tiff(np.round(RAMP).astype(np.int32)),
    "int32 0..255": tiff((255 * RAMP).round().astype(np.int32)),
    "int32 0..65535": tiff((65_535 * RAMP).round().astype(np.int32)),
    "int32, all of it": tiff((RAMP * (2**31 - 1)).astype(np.int32)),
    "8 bits in 16": tiff((255 * RAMP).round().astype(np.uint16)),
    "10 bits in 16": tiff((1_023 * RAMP).round().astype(np.uint16)),
    "12 bits in 16": tiff((4_095 * RAMP).round().astype(np.uint16)),
    "12 bits in 16, compressed": tiff((4_095 * RAMP).round().astype(np.uint16), compression="tiff_lzw"),
    "16 bits": tiff((65_535 * RAMP).round().astype(np.uint16)),
    "PNG, 12 bits in 16": png16((4_095 * RAMP).round()),
    "PNG, 14 bits in 16": png16((16_383 * RAMP).round()),
    "PNG, 16 bits": png16((65_535 * RAMP).round()),
    "PNG RGB, 10 bits in 16": png16(*[(1_023 * RAMP).round()] * 3),
    "PNG RGB, 8 bits in 16": png16(*[(255 * RAMP).round()] * 3),
    "PNG RGB, 16 bits": png16(*[(65_535 * RAMP).round()] * 3),
    "PNG RGBA, 12 bits in 16": png16(*[(4_095 * RAMP).round()] * 3, np.full_like(RAMP, 65_535)),
    "PNG grey and alpha, 12 bits in 16": png16((4_095 * RAMP).round(), np.full_like(RAMP, 65_535)),
}


@pytest.mark.parametrize("name", WHOLE_RANGES)
def test_every_clear_range_becomes_the_whole_range(name):
    want = 255 * (np.round(RAMP) if name == "int32 0..1" else RAMP)
    assert np.abs(grey(WHOLE_RANGES[name]) - want).mean() < 6


NAN, INFINITE = RAMP.copy(), RAMP.copy()
NAN[3, 3], INFINITE[3, 3] = np.nan, np.inf


@pytest.mark.parametrize(
    "values",
    [
        (RAMP - 0.5).astype(np.float32),
        (3.7 * RAMP).astype(np.float32),
        (0.001 * RAMP).astype(np.float32),
        (1e9 * RAMP).astype(np.float32),
        NAN.astype(np.float32),
        INFINITE.astype(np.float32),
        (200 * RAMP - 100).astype(np.int32),
        (5 * RAMP).astype(np.int32),
        (1_000_000 * RAMP).astype(np.int32),
        (9 * RAMP).astype(np.uint16),
    ],
    ids=["negative", "0..3.7", "0..0.001", "0..1e9", "NaN", "infinite", "int32 negative", "labels", "0..1e6", "u16"],
)
def test_an_unclear_range_is_refused(values):
    assert reason(tiff(values)) == "image_range"


def test_an_unclear_range_of_colours_is_refused():
    assert reason(png16(*[(9 * RAMP).round()] * 3)) == "image_range"


@pytest.mark.parametrize(
    ("data", "want"),
    [
        (tiff(np.zeros((9, 9), np.float32)), 0),
        (tiff(np.full((9, 9), 0.5, np.float32)), 128),
        (tiff(np.full((9, 9), 200, np.int32)), 200),
        (png16(np.full((9, 9), 65_535)), 255),
        (png16(np.zeros((9, 9))), 0),
        (png16(*[np.zeros((9, 9))] * 3), 0),
        (png16(*[np.full((9, 9), 3)] * 3), 3),
    ],
)
def test_an_image_of_one_value_is_taken_as_it_is(data, want):
    assert np.abs(grey(data) - want).max() <= 1


def test_white_may_be_zero():
    inverted = tiff((65_535 * (1 - RAMP)).round().astype(np.uint16), tiffinfo={262: 0})
    assert np.abs(grey(inverted) - 255 * RAMP).mean() < 2


def test_transparent_parts_of_dark_channels_are_white():
    dark = (4_095 * RAMP).round()
    assert grey(png16(dark, np.zeros_like(dark))).min() == 255


def test_declared_bits_count_more_than_the_values():
    assert eight_bits(np.array([0, 1_000], np.uint16), declared_bits=12).tolist() == [0, 62]
    assert eight_bits(np.array([0, 1_000], np.uint16)).tolist() == [0, 249]
