import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from comem_ray.config import ImageConfig
from comem_ray.knowledge.images import ImageError, check_header, normalize_image, open_image

LIMITS = ImageConfig(max_side=64)


def noise(width: int = 40, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def smooth(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def reason(data: bytes, limits: ImageConfig = LIMITS) -> str:
    with pytest.raises(ImageError) as caught:
        normalize_image(data, limits)
    assert not caught.value.retryable
    assert caught.value.detail
    return caught.value.reason


def decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def apng() -> bytes:
    return encoded(noise(), "PNG", save_all=True, append_images=[smooth(40, 30)])


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header promises more pixels than its few bytes hold."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_conforming_image_keeps_its_bytes(kind):
    data = encoded(noise(), kind)
    stored = normalize_image(data, LIMITS)
    assert (stored.data, stored.width, stored.height) == (data, 40, 30)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_every_format_becomes_a_small_rgb_image(kind):
    stored = normalize_image(encoded(smooth(400, 200), kind), LIMITS)
    image = decoded(stored.data)
    assert image.format in ("JPEG", "PNG")
    assert image.mode == "RGB"
    assert image.size == (stored.width, stored.height) == (64, 32)
    want = np.asarray(smooth(64, 32), dtype=float)
    assert np.abs(np.asarray(image, dtype=float) - want).mean() < 8


def test_the_same_bytes_give_the_same_bytes():
    data = encoded(noise(300, 200), "WEBP")
    assert normalize_image(data, LIMITS) == normalize_image(data, LIMITS)


def test_square_squashes_and_keep_aspect_does_not_enlarge():
    data = encoded(smooth(100, 50), "JPEG")
    square = normalize_image(data, ImageConfig(max_side=32, resize="square"))
    assert (square.width, square.height) == (32, 32)
    assert normalize_image(data, ImageConfig(max_side=512)).data == data


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = smooth(60, 40)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that a viewer of this orientation undoes
    turned = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(turned, "JPEG", exif=exif, quality=95)
    stored = normalize_image(data, LIMITS)
    assert (stored.width, stored.height) == (60, 40)
    assert decoded(stored.data).getexif().get(0x0112, 1) == 1
    for image in (decoded(stored.data), open_image(data, 10_000)):
        assert np.abs(np.asarray(image, dtype=float) - np.asarray(upright, dtype=float)).mean() < 6


def test_broken_exif_does_no_harm():
    data = encoded(noise(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert normalize_image(data, LIMITS).width == 40


def test_transparency_shows_white():
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([0, 0, 0, 255, 255, 255])
    for data in (
        encoded(clear, "PNG"),
        encoded(clear, "WEBP", lossless=True),
        encoded(clear.convert("LA"), "PNG"),
        encoded(palette, "PNG", transparency=0),
        encoded(palette, "GIF", transparency=0),
        encoded(Image.new("RGB", (20, 20), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
    ):
        assert np.asarray(decoded(normalize_image(data, LIMITS).data)).min() >= 250


def test_cmyk_palette_grey_and_bilevel_become_rgb():
    for mode in ("CMYK", "P", "L", "1"):
        data = encoded(smooth(30, 30).convert(mode), "JPEG" if mode == "CMYK" else "PNG")
        image = decoded(normalize_image(data, LIMITS).data)
        assert image.mode == "RGB"
        assert np.asarray(image).std() > 20


def test_sixteen_bits_are_scaled_not_clipped():
    grey = np.linspace(0, 65_535, 64 * 64).astype(np.uint16).reshape(64, 64)
    image = decoded(normalize_image(encoded(Image.fromarray(grey), "PNG"), LIMITS).data)
    got = np.asarray(image, dtype=float)[..., 0]
    assert np.abs(got - (grey >> 8)).mean() < 3


@pytest.mark.parametrize(
    ("data", "want"),
    [
        (b"", "image_empty"),
        (b"<html>not found</html>", "image_unreadable"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_svg"),
        (b"<?xml version='1.0'?>\n<!-- a --><svg/>", "image_svg"),
        (encoded(noise(), "GIF", save_all=True, append_images=[smooth(40, 30)]), "image_animated"),
        (encoded(noise(), "WEBP", save_all=True, append_images=[smooth(40, 30)]), "image_animated"),
        (apng(), "image_animated"),
        (encoded(noise(), "JPEG")[:900], "image_truncated"),
        (encoded(noise(), "JPEG")[:60], "image_truncated"),
        (encoded(noise(), "PNG")[:900], "image_truncated"),
        (huge_png(20_000, 20_000), "image_too_many_pixels"),
        (huge_png(9_000, 9_000), "image_too_many_pixels"),
        (encoded(Image.new("RGB", (1, 1)), "PNG"), "image_degenerate"),
        (encoded(Image.new("RGB", (900, 3)), "PNG"), "image_degenerate"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used_is_refused_with_a_reason(data, want):
    assert reason(data) == want


def test_too_many_bytes():
    assert reason(encoded(noise(), "PNG"), ImageConfig(max_bytes=100)) == "image_too_many_bytes"


def test_metadata_larger_than_the_pixels_is_dropped():
    data = encoded(noise(), "JPEG")
    heavy = data[:2] + b"".join(b"\xff\xe5\xff\xff" + bytes(65_533) for _ in range(3)) + data[2:]
    assert len(normalize_image(heavy, LIMITS).data) < 10_000


def test_open_image_checks_its_limit_before_decoding():
    with pytest.raises(ImageError, match="limit is 50,000,000 pixels"):
        open_image(huge_png(20_000, 20_000), 50_000_000)
    with pytest.raises(ImageError, match="limit is 100 pixels"):
        check_header(encoded(noise(), "PNG"), 100)
    assert open_image(encoded(noise().convert("P"), "PNG"), 2_000).mode == "RGB"


def test_any_damage_is_an_image_error():
    rng = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"):
        whole = np.frombuffer(encoded(smooth(50, 50), kind), np.uint8)
        for _ in range(30):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), 20)] = rng.integers(0, 256, 20)
            with suppress(ImageError):
                normalize_image(damaged.tobytes(), LIMITS)
