"""One driver per stage: a lock on a file, which ends with the process that holds it, however that ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from comem_ray.artifacts.files import storage_errors

_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # a filesystem without locks


class LockedError(RuntimeError):
    """Another process works on the same stage of the same run. The message names it."""


@contextmanager
def stage_lock(path: Path, what: str) -> Iterator[None]:
    """Holds the lock file `path` while the block runs. Raises LockedError if it is held: `what` by whom."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (closed below)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise LockedError(f"another run of {what} is at work: {read_holder(path)}") from None
        write_holder(path)
        try:
            yield
        finally:
            clear_holder(path)


def write_holder(path: Path) -> None:
    """Writes into the lock file `path` that this process holds the lock."""
    holder = {"process": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%H:%M:%S}"}
    with storage_errors(path):
        path.write_text(json.dumps(holder), encoding="utf-8")


def clear_holder(path: Path) -> None:
    """Empties the lock file `path`: nobody holds the lock."""
    with storage_errors(path):
        path.write_text("", encoding="utf-8")


def read_holder(path: Path) -> str:
    """Who holds the lock by the lock file `path`, and what to do about it, as the end of a sentence."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['process']} on {holder['host']}, since {holder['since']}. Wait for it, or stop it"
    except (OSError, ValueError, KeyError, TypeError):
        return f"it holds {path}. Wait for it, or stop it"
