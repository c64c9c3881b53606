"""Files that are there whole or not at all, and one sentence where the filesystem refuses.

Knows nothing of stages. Paths are on a filesystem that all nodes see.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_ROWS = 32  # small, so that reading a single item costs little

# What a filesystem says when it refuses. Libraries that write by themselves (FAISS, safetensors) give the text only.
_REFUSALS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.EIO,
    errno.ENAMETOOLONG,
)


class StorageError(OSError):
    """The filesystem does not take a file: no room, read-only, not a folder. The message has path and free bytes."""


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in pieces."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path in the same folder, then renames that file to `path`.

    File and folder are flushed to disk, so what is there after this call survives a loss of power. Raises StorageError
    where the filesystem refuses.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            write(temporary)
            with open(temporary, "rb") as f:
                os.fsync(f.fileno())
            move(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Renames a file within its filesystem, over one that is there, and flushes the folder to disk."""
    os.replace(source, target)
    flush_folder(target.parent)


def flush_folder(folder: Path) -> None:
    """Flushes the names in a folder to disk: a new file there survives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network filesystems cannot, and need not
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_parquet(path: Path, table: pa.Table) -> None:
    """Writes `table` as parquet (zstd, small row groups), atomically and with the same bytes for the same rows."""
    write_atomic(path, lambda p: pq.write_table(table, p, compression="zstd", row_group_size=ROW_GROUP_ROWS))


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns what a filesystem says while `path` is written into a StorageError; other exceptions pass."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        reason = _refusal(error)
        if reason is None:
            raise
        what = f"cannot write {path}: {reason}{_free(path)}"
        raise StorageError(f"{what}. Mend that and run again: finished work is kept") from error


def _refusal(error: Exception) -> str | None:
    """The filesystem's own words for why it refused; None for an error of another kind."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _REFUSALS:
        return os.strerror(number)
    if isinstance(error, OSError) and re.search(r"\d+ requested and \d+ written", str(error)):
        return f"not all was written ({error})"  # numpy does not say why
    return next((text for text in map(os.strerror, _REFUSALS) if text in str(error)), None)


def _free(path: Path) -> str:
    """ " (1.2 GB free of 50 GB there)" of the filesystem that holds `path`, "" if it cannot be asked."""
    existing = next((p for p in path.parents if p.exists()), Path("/"))
    try:
        usage = shutil.disk_usage(existing)
    except OSError:
        return ""
    return f" ({usage.free:,} bytes free of {usage.total:,} in {existing})"
