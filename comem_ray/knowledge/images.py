"""Pixels: from the bytes of any image on the web to an upright RGB image of bounded size.

The content of an image counts, never its name or its declared type. Its size is read from the header and checked
before anything is decoded. An image that cannot be used is an ImageError with a reason code:

    image_empty, image_too_many_bytes, image_svg, image_unreadable, image_truncated, image_animated,
    image_too_many_pixels, image_degenerate, image_mode, image_range

The same bytes always give the same bytes. Colour profiles are ignored. Does not know where an image comes from. Which
sizes can be used says `image_rules`, what becomes of more than 8 bits `image_values`, of metadata `image_metadata`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image
from PIL.ImageFile import ImageFile

from comem_ray.config import ImageConfig
from comem_ray.knowledge.image_metadata import JPEG, PNG, lean_jpeg, lean_png
from comem_ray.knowledge.image_rules import FORMATS, ImageError, check_size, stored_size
from comem_ray.knowledge.image_values import grey_image, is_dark, low_byte, wide_image

__all__ = ["ImageError", "StoredImage", "check_header", "normalize_image", "open_image"]

_SPARE_BYTES = 65_536  # metadata that an unchanged original may have on top of its raw pixels
_DRAFT = 2  # a JPEG is decoded at no less than this many times the target side

_MAGIC: dict[str, bytes | tuple[bytes, ...]] = {
    "PNG": PNG,
    "JPEG": JPEG,
    "GIF": b"GIF8",
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}
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


@dataclass(frozen=True)
class StoredImage:
    """An image as an item holds it: JPEG or PNG, RGB, upright. Width and height are in pixels."""

    data: bytes
    width: int
    height: int


def open_image(data: bytes, max_pixels: int) -> Image.Image:
    """Decodes `data` to an upright RGB image of at most `max_pixels` pixels. Raises ImageError."""
    data = _lean(data)
    image = _open(data, max_pixels)
    decoded = _to_rgb(_decode(image, data))
    return _upright(_flatten(decoded), _orientation(image))


def normalize_image(data: bytes, limits: ImageConfig) -> StoredImage:
    """The image within `limits`: the bytes themselves, without metadata, if they conform already, else a new JPEG.

    Raises ImageError.
    """
    if len(data) > limits.max_bytes:
        raise ImageError("image_too_many_bytes", f"{len(data):,} bytes, the limit is {limits.max_bytes:,}")
    data = _lean(data)
    image = _open(data, limits.max_pixels)
    target = stored_size(image.size, limits)
    if image.format == "JPEG" and target != image.size:
        image.draft(None, (target[0] * _DRAFT, target[1] * _DRAFT))
    decoded = _decode(image, data)
    orientation = _orientation(image)
    if target == image.size and _conforms(image, orientation, data):
        return StoredImage(data, *image.size)
    decoded = _to_rgb(decoded)
    if decoded.size != target:
        decoded = decoded.resize(target, Image.Resampling.LANCZOS, reducing_gap=3.0)
    decoded = _upright(_flatten(decoded), orientation)
    out = io.BytesIO()
    decoded.save(out, "JPEG", quality=limits.jpeg_quality)
    return StoredImage(out.getvalue(), *decoded.size)


def check_header(data: bytes, max_pixels: int) -> Image.Image:
    """Opens `data` and checks its format, size and frames, without decoding a pixel. Raises ImageError."""
    return _open(_lean(data), max_pixels)


def _lean(data: bytes) -> bytes:
    """The bytes to read and to store: a PNG without metadata; a JPEG without, if Pillow cannot read it with them."""
    if not data:
        raise ImageError("image_empty", "the image has no bytes")
    data = lean_png(data)
    if data.startswith(JPEG):
        try:
            Image.open(io.BytesIO(data), formats=FORMATS)
        except Exception:  # whatever it is, it may lie in the metadata
            return lean_jpeg(data)
    return data


def _open(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("image_too_many_pixels", f"the limit is {max_pixels:,} pixels") from error
    # Hostile bytes make Pillow's parsers raise whatever they like (struct.error, IndexError, ...).
    except Exception as error:
        if _is_cut_short(error):
            raise ImageError("image_truncated", "the image ends within its header") from error
        raise _unreadable(data) from error
    check_size(*image.size, max_pixels)
    _refuse_animated(image)
    return image


def _unreadable(data: bytes) -> ImageError:
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in start):
        return ImageError("image_svg", "SVG is a drawing, not pixels: give a JPEG or PNG rendering of it")
    if name := next((name for name, magic in _MAGIC.items() if data.startswith(magic)), None):
        detail = f"the {name} is damaged, or of a rare kind: write it again as RGB, with 8 bits per channel"
    elif b"<html" in start or start.startswith(b"<!doctype html"):
        detail = "this is an HTML page, not an image"
    else:
        detail = f"the bytes are not an image of a known format ({', '.join(FORMATS)})"
    return ImageError("image_unreadable", detail)


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


def _decode(image: Image.Image, data: bytes) -> Image.Image:
    """`image`, which is opened on `data`, with its pixels; those of dark 16-bit channels scaled by their range."""
    low_mode = low_byte(image) if isinstance(image, ImageFile) else None
    _load(image)
    if low_mode is None or not is_dark(image):
        return image
    again = Image.open(io.BytesIO(data), formats=FORMATS)
    assert isinstance(again, ImageFile)
    return wide_image(image, again, low_mode)


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


def _conforms(image: Image.Image, orientation: int, data: bytes) -> bool:
    eight_bits = image.format == "JPEG" or (image.format == "PNG" and data[24] == 8)  # byte 24: bit depth of IHDR
    lean = len(data) <= 3 * image.width * image.height + _SPARE_BYTES
    plain = image.mode == "RGB" and "transparency" not in image.info
    return eight_bits and plain and lean and orientation not in _UPRIGHT


def _to_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB, or as RGBA if parts of it are transparent."""
    if image.mode == "F" or image.mode.startswith("I"):
        return grey_image(image)  # Pillow's own conversion would clip at 255 instead of scaling
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
