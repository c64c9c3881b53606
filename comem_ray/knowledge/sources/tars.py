"""Members of a tar: streamed in order, or read by key. What is wrong with the file ends as a fault, not an exception.

A tar that breaks off gives every member before the break. Plain tars and gzip are read; links, folders and hidden
files are passed over. Knows nothing of rows.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comem_ray.knowledge.sources.keyed import IMAGE_ENDINGS, MAX_FILE_BYTES, split_key
from comem_ray.knowledge.sources.rows import RowFault

_BLOCK = 512
_DAMAGED = (tarfile.TarError, EOFError, zlib.error)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: its path there, and its bytes or why they are not read."""

    name: str
    data: bytes | RowFault


def read_members(path: Path) -> Iterator[Member | RowFault]:
    """The files of a tar in order, one in memory at a time; a RowFault at the end where the tar is not whole."""
    try:
        with tarfile.open(path, "r:*") as tar:
            for info in _infos(tar):
                yield Member(info.name, _content(tar, info))
            yield from _end_fault(tar)
    except _DAMAGED as error:
        yield _broken(path, error)
    except OSError as error:
        yield _unreadable(error)


class TarImages:
    """The images of a plain tar by key, read at random. `fault` says what is wrong with the tar, None if it is whole.

    Holds the places of the images, not their bytes.
    """

    def __init__(self, path: Path):
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        self.fault: RowFault | None = None
        try:
            with tarfile.open(path, "r:") as tar:
                for info in _infos(tar):
                    key, ending = split_key(info.name)
                    if ending in IMAGE_ENDINGS:
                        self._places.setdefault(key.rpartition("/")[2], (info.offset_data, info.size))
                self.fault = next(_end_fault(tar), None)
        except _DAMAGED as error:
            self.fault = _broken(path, error)
        except OSError as error:
            self.fault = _unreadable(error)

    def read(self, key: str) -> bytes | RowFault:
        """The bytes of the image of `key`."""
        if key not in self._places:
            lost = f": {self.fault.detail}" if self.fault else ""
            return RowFault("image_missing", f"{self._path.name} holds no image of key {key!r}{lost}")
        offset, size = self._places[key]
        if size > MAX_FILE_BYTES:
            return _too_large(size)
        try:
            with open(self._path, "rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            return _unreadable(error)
        if len(data) < size:
            return RowFault("tar_truncated", f"{self._path.name} ends within the image of key {key!r}")
        return data


def _infos(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := tar.next()) is not None:
        vars(tar)["members"] = []  # else a tar of a million members would be held in memory
        base = info.name.rpartition("/")[2]
        if info.isreg() and not base.startswith((".", "__")):
            yield info


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes | RowFault:
    if info.size > MAX_FILE_BYTES:
        return _too_large(info.size)
    file = tar.extractfile(info)
    assert file is not None
    data = file.read()
    if len(data) < info.size:
        raise tarfile.ReadError("unexpected end of data")
    return data


def _end_fault(tar: tarfile.TarFile) -> Iterator[RowFault]:
    """A fault where a plain tar does not end with the block of zeros that every writer puts there."""
    file = tar.fileobj
    if not isinstance(file, io.BufferedReader):  # gzip knows its end itself, and going back would cost the whole file
        return
    file.seek(tar.offset)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        yield RowFault("tar_truncated", "the tar ends too early, the rest is lost")
    elif block.strip(b"\0"):
        yield RowFault("tar_corrupt", "a header of the tar is damaged, the rest is lost")


def _too_large(size: int) -> RowFault:
    return RowFault("image_too_many_bytes", f"{size:,} bytes, the limit of a file in a tar is {MAX_FILE_BYTES:,}")


def _broken(path: Path, error: Exception) -> RowFault:
    try:
        if path.stat().st_size == 0:
            return RowFault("source_empty", "the file is empty")
    except OSError as unreadable:
        return _unreadable(unreadable)
    if isinstance(error, EOFError) or "end of data" in str(error) or "end-of-stream" in str(error):
        return RowFault("tar_truncated", "the tar ends too early, the rest is lost")
    return RowFault("tar_corrupt", "the file is not a tar, or it is damaged: the rest is lost")


def _unreadable(error: OSError) -> RowFault:
    if error.errno is None:  # gzip's own error for damaged bytes
        return RowFault("tar_corrupt", "the gzip data of the tar is damaged, the rest is lost")
    return RowFault("source_unreadable", f"the file cannot be read: {error.strerror}", True)
