"""Metadata that keeps Pillow from an image which every browser shows: it is taken out, the pixels are untouched.

A PNG loses all ancillary chunks but those that change pixels. So neither a comment of a megabyte nor a wrong checksum
in one costs the image. A wrong checksum in a critical chunk is damage. A JPEG loses its APP and COM segments, but those
of its colour transform and its orientation.
Source: PNG, third edition (W3C), sections 5 and 13; JPEG, ITU-T T.81, annex B.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from comem_ray.knowledge.image_rules import ImageError

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
# Transparency, orientation, and the frames of an animation (which is refused, not cut down to its first frame).
_PNG_KEPT = {b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"}
_ADOBE, _EXIF, _SCAN = 0xEE, 0xE1, 0xDA
_METADATA = {*range(0xE0, 0xF0), 0xFE}  # APP0 to APP15, and the comment


def lean_png(data: bytes) -> bytes:
    """A PNG without metadata, or `data` itself if it has none or is no PNG. Raises ImageError for a damaged chunk.

    Bytes behind the last whole chunk stay as they are: the decoder says what is wrong with them.
    """
    if not data.startswith(PNG):
        return data
    kept, end = [(0, len(PNG))], len(PNG)
    for kind, start, end in _png_chunks(data):
        critical = not kind[0] & 0x20
        whole = zlib.crc32(memoryview(data)[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])
        if critical and not whole:
            name = kind.decode("ascii", "replace")
            raise ImageError("image_unreadable", f"the PNG is damaged: the checksum of its chunk {name} is wrong")
        if critical or (whole and kind in _PNG_KEPT):
            kept.append((start, end))
    kept.append((end, len(data)))
    if sum(stop - start for start, stop in kept) == len(data):
        return data
    return b"".join(data[start:stop] for start, stop in kept)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The whole chunks up to IEND: kind, and where each starts and ends."""
    start, kind = len(PNG), b""
    while start + 12 <= len(data) and kind != b"IEND":
        end = start + 12 + int.from_bytes(data[start : start + 4])
        kind = data[start + 4 : start + 8]
        if end > len(data):
            return
        yield kind, start, end
        start = end


def lean_jpeg(data: bytes) -> bytes:
    """A JPEG without metadata, or `data` itself if it is no JPEG or its segments cannot be told apart."""
    if not data.startswith(JPEG):
        return data
    kept, start = [data[:2]], 2
    while data[start : start + 1] == b"\xff" and start + 4 <= len(data):
        marker = data[start + 1]
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        if marker == _SCAN:
            return b"".join([*kept, data[start:]])
        if marker == 0xFF:  # padding before a marker
            start += 1
            continue
        if marker not in _METADATA or _changes_pixels(marker, data[start + 4 : end]):
            kept.append(data[start:end])
        start = end
    return data


def _changes_pixels(marker: int, body: bytes) -> bool:
    return (marker == _ADOBE and body.startswith(b"Adobe")) or (marker == _EXIF and body.startswith(b"Exif\0\0"))
