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


def wide_tiff(values: np.ndarray, order: str = "<") -> bytes:
    """An uncompressed TIFF of any number type and channels, which Pillow itself does not write."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    body = values.astype(values.dtype.newbyteorder(order)).tobytes()
    fields = [(256, values.shape[1]), (257, values.shape[0]), (258, values.dtype.itemsize * 8), (259, 1)]
    fields += [(262, 1 if channels == 1 else 2), (273, 0), (277, channels), (278, values.shape[0]), (339, kind)]
    arrays, start = b"", 8 + 2 + 12 * len(fields) + 4
    entries = []
    for tag, value in fields:
        count = channels if tag in (258, 339) else 1
        packed = struct.pack(order + "H" * count, *[value] * count).ljust(4, b"\0")
        if len(packed) > 4:
            arrays, packed = arrays + packed, struct.pack(order + "I", start + len(arrays))
        entries.append((tag, count, packed))
    offset = struct.pack(order + "I", start + len(arrays))
    directory = b"".join(
        struct.pack(order + "HHI", tag, 4 if tag == 273 else 3, count) + (offset if tag == 273 else packed)
        for tag, count, packed in entries
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(fields))
    return head + directory + bytes(4) + arrays + body


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
    "int16, all of it": wide_tiff((32_767 * RAMP).round().astype(np.int16)),
    "int16 0..255": wide_tiff((255 * RAMP).round().astype(np.int16), ">"),
    "uint32, all of it": wide_tiff((RAMP * (2**32 - 1)).astype(np.uint32)),
    "TIFF RGB, 12 bits in 16": wide_tiff(np.stack([(4_095 * RAMP).round().astype(np.uint16)] * 3, axis=-1)),
    "TIFF RGB, 10 bits in 16, MM": wide_tiff(np.stack([(1_023 * RAMP).round().astype(np.uint16)] * 3, axis=-1), ">"),
    "TIFF RGBA, 8 bits in 16": wide_tiff(
        np.stack([*[(255 * RAMP).round().astype(np.uint16)] * 3, np.full(RAMP.shape, 65_535, np.uint16)], axis=-1)
    ),
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


@pytest.mark.parametrize("values", [RAMP, RAMP.astype(np.float16), np.stack([RAMP.astype(np.float32)] * 3, axis=-1)])
def test_a_kind_of_number_that_cannot_be_read_says_what_to_write(values):
    assert reason(wide_tiff(values)) == "image_unreadable"


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
