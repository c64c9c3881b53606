"""Which images can be used: the one place that says it, for ingest and for every stage that opens an image again.

The limits hold for a source image and for what is stored of it. So a stored image is never refused later: not by
`open_image`, not by CLIP's preprocessing, not by the image processor of Qwen2-VL, which refuses ratios above 200.
Knows no bytes.
"""

from __future__ import annotations

from comem_ray.config import ImageConfig

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
MIN_SIDE = 2  # pixels; one-pixel-wide images are trackers and rulers
MAX_ASPECT = 100  # longest side / shortest side


class ImageError(ValueError):
    """An image that cannot be used. `reason` is a code, `detail` a sentence; `retryable`: a later run may succeed."""

    def __init__(self, reason: str, detail: str, retryable: bool = False):
        super().__init__(detail)
        self.reason, self.detail, self.retryable = reason, detail, retryable


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises ImageError for an image of too many pixels, of a side below MIN_SIDE, or of a ratio above MAX_ASPECT."""
    if width * height > max_pixels:
        raise ImageError("image_too_many_pixels", f"{width}x{height} pixels, the limit is {max_pixels:,} pixels")
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            "image_degenerate",
            f"{width}x{height} pixels: each side must have at least {MIN_SIDE}, at most {MAX_ASPECT} times the other",
        )


def stored_size(size: tuple[int, int], limits: ImageConfig) -> tuple[int, int]:
    """Width and height to store an image of `size` in. It passes `check_size` if `size` does.

    Rounding alone would make 512x5 of 2000x20: the short side is kept long enough.
    """
    if limits.resize == "square":
        return limits.max_side, limits.max_side
    longest = max(size)
    if longest <= limits.max_side:
        return size
    shortest = max(MIN_SIDE, -(-limits.max_side // MAX_ASPECT))
    width, height = (max(shortest, round(side * limits.max_side / longest)) for side in size)
    return width, height
