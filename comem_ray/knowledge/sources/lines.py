"""Lines of a text file, plain or gzip, of any size, in bounded memory.

Anything wrong with the file ends as a faulty line, never as an exception: a line that is too long (its start is kept,
the rest skipped), and a file that breaks off (truncated or corrupt gzip, a read error: the read part of the last line
is kept). The first bytes of a file say whether it is gzip, not its name. Knows nothing of columns.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from comem_ray.knowledge.sources.rows import RowFault

Line = tuple[bytes, RowFault | None]
"""The bytes of a line without its end, with its fault if it has one."""

MAX_LINE_BYTES = 48 * 2**20  # a data URI of a 30 MB image fits
RAW_BYTES = 4_096  # bytes kept of a faulty line
_PIECE = 65_536
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


class _Broken(Exception):
    def __init__(self, fault: RowFault):
        super().__init__(fault.detail)
        self.fault = fault


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file, without "\\n" or "\\r\\n" and without a byte order mark in front."""
    held: list[bytes] = []  # the pieces so far of an unfinished line
    size = 0
    try:
        for piece in _pieces(path):
            *ended, rest = piece.split(b"\n")
            for part in ended:
                yield _line(held, size, part)
                held, size = [], 0
            if size <= MAX_LINE_BYTES:
                held.append(rest)
            size += len(rest)
    except _Broken as broken:
        yield b"".join(held)[:RAW_BYTES], broken.fault
        return
    if size:
        yield _line(held, size, b"")


def _line(held: list[bytes], size: int, last: bytes) -> Line:
    size += len(last)
    if size > MAX_LINE_BYTES:
        start = b"".join(h[:RAW_BYTES] for h in [*held[:2], last])[:RAW_BYTES]
        return start, RowFault("row_too_long", f"the line has {size:,} bytes, the limit is {MAX_LINE_BYTES:,}")
    line = b"".join([*held, last]) if held else last
    return line.removesuffix(b"\r"), None


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            start = file.read(len(_GZIP))
            file.seek(0)
            pieces = _inflated(file) if start == _GZIP else iter(lambda: file.read(_PIECE), b"")
            first = next(pieces, b"")
            yield first.removeprefix(_BOM)
            yield from pieces
    except OSError as error:
        raise _Broken(RowFault("source_unreadable", f"the file cannot be read: {error.strerror}", True)) from error


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    """Decompresses the members of a gzip file, one after the other, and yields every byte before a break."""
    inflate = zlib.decompressobj(wbits=31)
    for piece in iter(lambda: file.read(_PIECE // 4), b""):
        while piece:
            if inflate.eof:
                piece = piece.lstrip(b"\0")  # padding between and after members is allowed
                if not piece:
                    break
                inflate = zlib.decompressobj(wbits=31)
            before = inflate.copy()
            try:
                yield inflate.decompress(piece)
            except zlib.error as error:
                yield _salvage(before, piece)
                raise _Broken(RowFault("gz_corrupt", "the gzip data is damaged, the rest is lost")) from error
            piece = inflate.unused_data
    if not inflate.eof:
        raise _Broken(RowFault("gz_truncated", "the gzip file ends too early, the rest is lost"))


def _salvage(inflate: zlib._Decompress, piece: bytes) -> bytes:
    """The part of a damaged piece that can be decompressed, byte by byte."""
    out = bytearray()
    try:
        for n in range(len(piece)):
            out += inflate.decompress(piece[n : n + 1])
    except zlib.error:
        pass
    return bytes(out)
