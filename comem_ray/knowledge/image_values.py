"""Pixels of more than 8 bits as 8 bits: scaled by the range that the values themselves show, or refused.

A TIFF of floats or of 32-bit integers does not say which value is white, and 16 bits often hold 10 or 12. So the range
comes from the largest value: 0 to 1 for floats, or the smallest of 8, 10, 12, 14, 16, 31 and 32 bits that holds it.
What stays unclear is refused (reason image_range): negative numbers, NaN, infinity, and values so small against every
range that the image would be black. An image of one single value is taken as it is. Opens no file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from comem_ray.knowledge.image_rules import ImageError

DARKEST = 16  # an image whose brightest value is below 1/16 of white is one whose range was guessed wrong
_BITS = (8, 10, 12, 14, 16)
_FULL_BITS = (31, 32)  # of a 32-bit integer: clear only where the values use the top half of it
_RINGING = 0.05  # how far resampling may lead floats out of their range, as a share of it

# How Pillow unpacks channels of 16 bits, which it cuts to the high byte, and how it would unpack the low byte.
_LOW_BYTE = {
    **{f"{name};16B": f"{name};16L" for name in ("RGB", "RGBA", "RGBX")},
    **{f"{name};16L": f"{name};16B" for name in ("RGB", "RGBA", "RGBX")},
    **{f"{name};16N": f"{name};16B" for name in ("RGB", "RGBA", "RGBX")},
}
_GREY_ALPHA = "LA;16B"


def eight_bits(values: np.ndarray, declared_bits: int | None = None) -> np.ndarray:
    """Values of any number type as uint8, black at 0. `declared_bits`: what the file says. Raises ImageError."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("image_range", "a pixel is not a number (NaN or infinite): write 8 bits per channel")
    floats = values.dtype.kind == "f"
    white = 2.0**declared_bits - 1 if declared_bits else _white(low, high, values.dtype)
    if low < (-_RINGING * high if floats else 0) or white is None or (low != high and high < white / DARKEST):
        raise ImageError(
            "image_range",
            f"values from {low:.6g} to {high:.6g} do not show which of them is white: write 8 bits per channel",
        )
    scaled = np.clip(values.astype(np.float32) * np.float32(255 / white), 0, 255)
    return (scaled + np.float32(0.5)).astype(np.uint8)


def _white(low: float, high: float, dtype: np.dtype[Any]) -> float | None:
    """The value of white; None if the values do not show it."""
    floats = dtype.kind == "f"
    if high <= (1 + _RINGING if floats else 1) and (floats or low != high):
        return 1.0
    for bits in (*_BITS[:-1], 15) if dtype == np.int16 else _BITS:
        if high < 2**bits:
            return 2.0**bits - 1
    if floats:
        return None
    return next((2.0**bits - 1 for bits in _FULL_BITS if 2 ** (bits - 1) <= high < 2**bits), None)


def grey_image(image: Image.Image) -> Image.Image:
    """A decoded image of one channel, of more than 8 bits (modes I, I;16 and F), as RGB. Raises ImageError."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    values = np.asarray(image)
    bits, number, interpretation = (tags.get(tag) for tag in (258, 339, 262))
    if image.mode == "I" and bits == (32,) and number in (None, (1,), 1):
        values = values.view(np.uint32)  # Pillow holds it as int32
    elif image.mode.startswith("I;16"):
        values = values.astype(np.uint16)
    elif bits == (16,):  # with a sign
        values = values.astype(np.int16)
    grey = eight_bits(values, 12 if bits == (12,) else None)
    if interpretation == 0:  # white is zero
        grey = 255 - grey
    return Image.fromarray(grey).convert("RGB")


def low_byte(image: ImageFile) -> str | None:
    """How to unpack the low bytes of an image that is not yet decoded; None where a channel has no 16 bits."""
    raws = {_raw_mode(tile) for tile in image.tile}
    if len(raws) != 1 or (raw := raws.pop()) is None:
        return None
    return "RGBA" if raw == _GREY_ALPHA else _LOW_BYTE.get(raw)


def is_dark(image: Image.Image) -> bool:
    """Whether the colours of a decoded RGB or RGBA image, high bytes of 16 bits, use less than 15 of them."""
    return bool(np.asarray(image)[..., :3].max() < 64)


def wide_image(high: Image.Image, image: ImageFile, low_mode: str) -> Image.Image:
    """`high`, the decoded high bytes, scaled by their range. `image` is the same one, not yet decoded."""
    image.tile = [tile._replace(args=_with_raw_mode(tile.args, low_mode)) for tile in image.tile]
    image.load()
    top, low = np.asarray(high).astype(np.uint16), np.asarray(image).astype(np.uint16)
    if low_mode == "RGBA":  # the four bytes of grey and alpha
        grey = low[..., 0] << 8 | low[..., 1]
        return Image.merge(
            "RGBA", [Image.fromarray(eight_bits(grey))] * 3 + [Image.fromarray(low[..., 2].astype("u1"))]
        )
    colours = eight_bits(top[..., :3] << 8 | low[..., :3])
    if top.shape[-1] == 4:
        return Image.fromarray(np.concatenate([colours, top[..., 3:].astype(np.uint8)], axis=-1))
    return Image.fromarray(colours)


def _raw_mode(tile: Any) -> str | None:
    args = tile.args
    return args if isinstance(args, str) else args[0] if args and isinstance(args[0], str) else None


def _with_raw_mode(args: Any, raw_mode: str) -> Any:
    return raw_mode if isinstance(args, str) else (raw_mode, *args[1:])
