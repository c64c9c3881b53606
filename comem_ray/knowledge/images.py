"""Pixels: from the bytes of any image on the web to an upright RGB image of bounded size.

The content of an image counts, never its name or its declared type. Its size is read from the header and checked
before anything is decoded. An image that cannot be used is an ImageError with a reason code:

    image_empty, image_too_many_bytes, image_svg, image_unreadable, image_truncated, image_animated,
    image_too_many_pixels, image_degenerate, image_mode

The same bytes always give the same bytes. Colour profiles are ignored. Does not know where an image comes from.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from comem_ray.config import ImageConfig

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
MIN_SIDE = 2  # pixels; one-pixel-wide images are trackers and rulers
MAX_ASPECT = 100  # longest side / shortest side; vision towers refuse more than 200
_SPARE_BYTES = 65_536  # metadata that an unchanged original may have on top of its raw pixels
_DRAFT = 2  # a JPEG is decoded at no less than this many times the target side

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """An image that cannot be used. `reason` is a code, `detail` a sentence; `retryable`: a later run may succeed."""

    def __init__(self, reason: str, detail: str, retryable: bool = False):
        super().__init__(detail)
        self.reason, self.detail, self.retryable = reason, detail, retryable


@dataclass(frozen=True)
class StoredImage:
    """An image as an item holds it: JPEG or PNG, RGB, upright. Width and height are in pixels."""

    data: bytes
    width: int
    height: int


def open_image(data: bytes, max_pixels: int) -> Image.Image:
    """Decodes `data` to an upright RGB image of at most `max_pixels` pixels. Raises ImageError."""
    image = check_header(data, max_pixels)
    _load(image)
    return _upright(_flatten(_to_rgb(image)), _orientation(image))


def normalize_image(data: bytes, limits: ImageConfig) -> StoredImage:
    """The image within `limits`: the bytes themselves if they conform already, else a new JPEG.

    Raises ImageError.
    """
    if len(data) > limits.max_bytes:
        raise ImageError("image_too_many_bytes", f"{len(data):,} bytes, the limit is {limits.max_bytes:,}")
    image = check_header(data, limits.max_pixels)
    target = _target_size(image.size, limits)
    if image.format == "JPEG" and target != image.size:
        image.draft(None, (target[0] * _DRAFT, target[1] * _DRAFT))
    _load(image)
    orientation = _orientation(image)
    if target == image.size and _conforms(image, orientation, data):
        return StoredImage(data, *image.size)
    image = _to_rgb(image)
    if image.size != target:
        image = image.resize(target, Image.Resampling.LANCZOS, reducing_gap=3.0)
    image = _upright(_flatten(image), orientation)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=limits.jpeg_quality)
    return StoredImage(out.getvalue(), *image.size)


def check_header(data: bytes, max_pixels: int) -> Image.Image:
    """Opens `data` and checks its format, size and frames, without decoding a pixel. Raises ImageError."""
    if not data:
        raise ImageError("image_empty", "the image has no bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("image_too_many_pixels", f"the limit is {max_pixels:,} pixels") from error
    # Hostile bytes make Pillow's parsers raise whatever they like (struct.error, IndexError, ...).
    except Exception as error:
        if _is_cut_short(error):
            raise ImageError("image_truncated", "the image ends within its header") from error
        raise _unreadable(data) from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError("image_too_many_pixels", f"{width}x{height} pixels, the limit is {max_pixels:,} pixels")
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            "image_degenerate",
            f"{width}x{height} pixels: each side must have at least {MIN_SIDE}, at most {MAX_ASPECT} times the other",
        )
    _refuse_animated(image)
    return image


def _unreadable(data: bytes) -> ImageError:
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in start):
        return ImageError("image_svg", "SVG is a drawing, not pixels: give a JPEG or PNG rendering of it")
    known = ", ".join(FORMATS)
    return ImageError("image_unreadable", f"the bytes are not an image of a known format ({known})")


def _refuse_animated(image: Image.Image) -> None:
    # MPO is a JPEG with further views after it (phones write them): its first image counts.
    if image.format == "MPO":
        return
    try:
        animated = getattr(image, "is_animated", False)
    except Exception as error:
        raise ImageError("image_unreadable", "the frames of the image cannot be counted") from error
    if animated:
        raise ImageError("image_animated", f"{image.format} with several frames or pages, a single one is wanted")


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:  # decoders raise anything for hostile bytes, as above
        if _is_cut_short(error):
            raise ImageError("image_truncated", f"the {image.format} ends before its last pixel") from error
        raise ImageError("image_unreadable", f"the {image.format} cannot be decoded") from error


def _is_cut_short(error: Exception) -> bool:
    return isinstance(error, EOFError) or "truncated" in str(error).lower()


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # broken EXIF is common, and the pixels are still good
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _target_size(size: tuple[int, int], limits: ImageConfig) -> tuple[int, int]:
    width, height = size
    if limits.resize == "square":
        return limits.max_side, limits.max_side
    longest = max(width, height)
    if longest <= limits.max_side:
        return size
    return max(1, round(width * limits.max_side / longest)), max(1, round(height * limits.max_side / longest))


def _conforms(image: Image.Image, orientation: int, data: bytes) -> bool:
    eight_bits = image.format == "JPEG" or (image.format == "PNG" and data[24] == 8)  # byte 24: bit depth of IHDR
    lean = len(data) <= 3 * image.width * image.height + _SPARE_BYTES
    plain = image.mode == "RGB" and "transparency" not in image.info
    return eight_bits and plain and lean and orientation not in _UPRIGHT


def _to_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB, or as RGBA if parts of it are transparent."""
    if image.mode.startswith("I"):
        # 16 bits per grey pixel: Pillow's own conversion would clip at 255 instead of scaling.
        grey = np.clip(np.asarray(image), 0, 65_535).astype(np.uint16)
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    transparent = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
    try:
        if image.mode in ("RGBa", "La"):
            image = image.convert(image.mode.upper())
        return image.convert("RGBA" if transparent else "RGB")
    except Exception as error:  # palettes and transparency tables may be damaged too
        raise ImageError("image_mode", f"colour mode {image.mode} cannot be turned into RGB") from error


def _flatten(image: Image.Image) -> Image.Image:
    """The image as RGB, with transparent parts in white."""
    if image.mode != "RGBA":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white
