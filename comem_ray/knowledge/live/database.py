"""The journal's SQLite file: opened by one process alone, each commit on disk, and errors in one sentence.

Source: the SQLite documentation on WAL (with locking_mode=EXCLUSIVE it needs no shared memory) and on PRAGMA
synchronous (FULL syncs the log at every commit).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comem_ray.artifacts import ArtifactError, StorageError, storage_errors
from comem_ray.artifacts.files import flush_folder
from comem_ray.artifacts.lock import LockedError, read_holder, write_holder
from comem_ray.knowledge.live.records import SealError

FILE, HOLDER, EXPORTED = "journal.sqlite", "journal.lock", "current.json"
VERSION = 1
_REFUSALS = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_PERM", "SQLITE_TOOBIG")
_PRAGMAS = ("synchronous=FULL", "fullfsync=ON", "secure_delete=FAST", "cache_size=-16000", "wal_autocheckpoint=4000")

_TABLES = """
CREATE TABLE changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, item_id TEXT NOT NULL UNIQUE, first INTEGER NOT NULL,
    deleted INTEGER NOT NULL, language TEXT, clip TEXT, encoder TEXT, queries INTEGER,
    image_vector BLOB, text_vector BLOB, content BLOB, memory BLOB, image BLOB
);
CREATE INDEX changes_by_kind ON changes (deleted, seq);
CREATE TABLE requests (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, seq INTEGER NOT NULL, reply TEXT NOT NULL, at REAL NOT NULL
);
CREATE INDEX requests_by_age ON requests (at);
CREATE TABLE pruned (upto INTEGER NOT NULL);
"""


def open_database(folder: Path) -> sqlite3.Connection:
    """The database in `folder`, made if it is not there. No other process can open it until it is closed.

    Its rows are dicts by column. The changes are numbered from the export in `folder` on, at least. Raises LockedError
    that names the holder, StorageError where the filesystem refuses, ArtifactError for a file that is damaged or of a
    later version.
    """
    path = folder / FILE
    with storage_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
    with database_errors(path):
        # A commit of another process takes milliseconds, a holder takes hours: waiting helps neither.
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    write_holder(folder / HOLDER)
    with storage_errors(path):
        flush_folder(folder)
        flush_folder(folder.parent)
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # before the first access: the log needs no shared memory
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise StorageError(f"cannot write {path}: its filesystem takes no write-ahead log. Put it on another one")
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN IMMEDIATE")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise ArtifactError(f"{path} was written by a later version of this package: use that version")
    exported = exported_seq(path.with_name(EXPORTED))
    if version == 0:
        _create(connection, exported)
    # Of an earlier state of the file, put back from a backup, the next numbers are in shards already.
    connection.execute("UPDATE sqlite_sequence SET seq = MAX(seq, ?)", (exported,))
    connection.execute("COMMIT")
    connection.row_factory = lambda cursor, row: dict(zip((c[0] for c in cursor.description), row, strict=True))


def _create(connection: sqlite3.Connection, exported: int) -> None:
    for statement in _TABLES.split(";"):
        connection.execute(statement)
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('changes', 0)")
    connection.execute("INSERT INTO pruned (upto) VALUES (?)", (exported,))
    connection.execute(f"PRAGMA user_version={VERSION}")


def exported_seq(path: Path) -> int:
    """The sequence number of the last export, by its current.json; 0 if nothing was exported.

    Raises ArtifactError if the file is damaged.
    """
    try:
        seq = json.loads(path.read_text(encoding="utf-8"))["seq"]
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}): put back a backup of this file") from error
    if not isinstance(seq, int) or seq < 0:
        raise ArtifactError(f"{path} is damaged (its seq is {seq!r}): put back a backup of this file")
    return seq


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turns what SQLite and the seals say about `path` into LockedError, StorageError or ArtifactError."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a mistake of ours
    except (sqlite3.Error, SealError) as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise LockedError(f"another process has {path} open: {read_holder(path.with_name(HOLDER))}") from error
        if name.startswith(_REFUSALS):
            message = f"cannot write {path}: {error}. Mend that and try again: what was acknowledged is kept"
            raise StorageError(message) from error
        raise ArtifactError(
            f"{path} is damaged ({error}). Put back a backup of the folder {path.parent}, or move this file away: the "
            "knowledge of the last export is kept, later changes are lost"
        ) from error
