"""Hostile images and requests."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image
from support.tiny import image

HEAD = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *chunks: bytes, rows: bytes | None = None) -> bytes:
    """A PNG of that size by its header; its pixels are `rows`, by default black and far too few."""
    pixels = zlib.compress(bytes(1_000) if rows is None else rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return HEAD + header + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG of 8 x 8 pixels with a text that unpacks to 100 MB."""
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9))
    return png_of(8, 8, bomb, rows=(b"\0" + bytes(24)) * 8)


def pixel_bomb() -> bytes:
    """A PNG of 8 x 8 pixels whose data unpack to 100 MB."""
    return png_of(8, 8, rows=bytes(100_000_000))


def encoded(format: str, frames: int = 1, size: int = 64) -> bytes:
    out = io.BytesIO()
    more: list[Image.Image] = [image(n + 2, size, size) for n in range(frames - 1)]
    image(1, size, size).save(out, format, save_all=bool(more), append_images=more)
    return out.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
GZIP = b"\x1f\x8b\x08\x00" + bytes(60)
