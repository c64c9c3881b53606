"""The first pass over the source files: their chunks, the rows that repeat an earlier row, and those that are deleted.

A scan streams one file and keeps 12 bytes per row (the item's identity), so that a driver can hold 37 million rows. It
is saved next to the items, and used again while the file's size and times are unchanged. Reads no image.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comem_ray.artifacts import fingerprint, write_atomic
from comem_ray.knowledge.sources.chunks import PATH_FORMATS, RULES, parse_batch, read_chunks, related_files, rows_digest
from comem_ray.knowledge.sources.files import SourceFile
from comem_ray.knowledge.sources.rows import ID_BYTES, NO_ITEM, Row

NONE_DELETED = np.empty((0, ID_BYTES), np.uint8)


@dataclass(frozen=True)
class Scan:
    """`identities` (rows, 12) uint8, zeros for a rejected row; `chunks` holds (rows, digest) of each chunk."""

    identities: np.ndarray
    chunks: list[tuple[int, str]]


@dataclass(frozen=True)
class Unit:
    """One chunk as a unit of the items stage.

    `repeats`: positions in it of rows that repeat an earlier row. `deleted`: of rows whose item is deleted.
    `identities`: those of its rows, as in `Scan`.
    """

    name: str
    chunk: int
    first_row: int
    digest: str
    repeats: np.ndarray
    deleted: np.ndarray
    inputs: str
    identities: np.ndarray


def saved_scan(file: SourceFile, rows: int, folder: Path) -> Scan | None:
    """The scan of an earlier run in `folder`; None if there is none, or the file has changed since."""
    return _load(_path(file, folder), _file_state(file, rows))


def scan(file: SourceFile, rows: int, folder: Path) -> Scan:
    """Scans `file` in chunks of `rows` rows and saves the scan in `folder`."""
    state = _file_state(file, rows)
    identities = bytearray()
    chunks: list[tuple[int, str]] = []
    reusable = True
    for chunk in read_chunks(file, rows):
        parsed = parse_batch(file.format, chunk.batch)
        for _, row in parsed:
            identities += bytes.fromhex(row.item_id) if isinstance(row, Row) else NO_ITEM
            # A read error may be gone in the next run, though the file's size and times are the same.
            reusable = reusable and (isinstance(row, Row) or row.reason != "source_unreadable")
        chunks.append((len(parsed), rows_digest(parsed)))
    result = Scan(np.frombuffer(bytes(identities), np.uint8).reshape(-1, ID_BYTES), chunks)
    _save(_path(file, folder), result, state if reusable else {})
    return result


def units(files: Sequence[SourceFile], scans: Sequence[Scan], deleted: np.ndarray = NONE_DELETED) -> list[list[Unit]]:
    """The units of each file, in order.

    `deleted` (n, 12) uint8: the items of these ids are left out of every file but the live source, which may hold one
    of them again, with another content.
    """
    masks = [contained(s.identities, NONE_DELETED if f.live else deleted) for f, s in zip(files, scans, strict=True)]
    remaining = [
        np.where(mask[:, None], np.uint8(0), s.identities) if mask.any() else s.identities
        for s, mask in zip(scans, masks, strict=True)
    ]
    return [list(_units(*parts)) for parts in zip(files, scans, repeated(remaining), masks, strict=True)]


def repeated(identities: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each (rows, 12) uint8 array a bool array (rows,): true if an earlier row, in order, has the same identity.

    Rows of zeros repeat nothing. Takes about 40 bytes per row while it runs.
    """
    everything = np.concatenate([np.zeros((0, ID_BYTES), np.uint8), *identities])
    # Compared as one 8-byte and one 4-byte number; lexsort is stable, so equal rows stay in order.
    high = _beginnings(everything)
    low = np.ascontiguousarray(everything[:, 8:]).view(">u4").ravel().astype(np.uint32)
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    same = (high[1:] == high[:-1]) & (low[1:] == low[:-1]) & ((high[1:] != 0) | (low[1:] != 0))
    mask = np.zeros(len(everything), bool)
    mask[order[1:][same]] = True
    return np.split(mask, np.cumsum([len(part) for part in identities])[:-1])


def contained(identities: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """A bool array (rows,): true where a row of `identities` (rows, 12) uint8 is one of `chosen` (n, 12)."""
    mask = np.zeros(len(identities), bool)
    if len(chosen):
        beginnings = np.sort(_beginnings(chosen))
        wanted = _beginnings(identities)
        nearest = np.minimum(np.searchsorted(beginnings, wanted), len(beginnings) - 1)
        exact = {row.tobytes() for row in chosen}
        for row in np.flatnonzero(beginnings[nearest] == wanted):
            mask[row] = identities[row].tobytes() in exact
    return mask


def _beginnings(identities: np.ndarray) -> np.ndarray:
    """The first 8 bytes of each row as a number."""
    return np.ascontiguousarray(identities[:, :8]).view(">u8").ravel().astype(np.uint64)


def _units(file: SourceFile, scan: Scan, repeated: np.ndarray, deleted: np.ndarray) -> Iterator[Unit]:
    first_row = 0
    for number, (rows, digest) in enumerate(scan.chunks):
        own = slice(first_row, first_row + rows)
        repeats, left_out = (np.flatnonzero(mask[own]).astype(np.int32) for mask in (repeated, deleted))
        # Deleted rows count in their own unit only: the others stay finished.
        more = [left_out.tolist()] if len(left_out) else []
        inputs = fingerprint([RULES, file.name, first_row, digest, repeats.tolist(), *more])
        name = f"{file.label}-{number:06d}"
        yield Unit(name, number, first_row, digest, repeats, left_out, inputs, scan.identities[own])
        first_row += rows


def _path(file: SourceFile, folder: Path) -> Path:
    return folder / f"{file.label}.npz"


def _file_state(file: SourceFile, rows: int) -> dict[str, Any]:
    try:
        status = os.stat(file.path)
    except OSError:
        return {}
    times = [status.st_mtime_ns, status.st_ctime_ns]
    state = {"rules": RULES, "path": file.path, "format": file.format, "rows": rows, "size": status.st_size}
    # Before a JSONL row could give its id, its scan held the digest in that place.
    more: dict[str, Any] = {"ids": "given"} if file.format == "jsonl" else {}
    if related := related_files(file):
        more["related"] = fingerprint([_related_state(path) for path in related])
    if file.columns:
        more["columns"] = [list(pair) for pair in file.columns]
    if file.format not in PATH_FORMATS:
        more["images"] = file.images
    return {**state, "at": times, **more}


def _related_state(path: Path) -> list[Any]:
    try:
        status = os.stat(path)
    except OSError:
        return [str(path)]
    return [str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _load(path: Path, state: dict[str, Any]) -> Scan | None:
    try:
        with np.load(path) as saved:
            about = json.loads(saved["about"].tobytes())
            if not state or about["made_of"] != state:
                return None
            return Scan(saved["identities"], [(rows, digest) for rows, digest in about["chunks"]])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # missing or damaged
        return None


def _save(path: Path, result: Scan, state: dict[str, Any]) -> None:
    about = np.frombuffer(json.dumps({"made_of": state, "chunks": result.chunks}).encode(), np.uint8)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, identities=result.identities, about=about)

    write_atomic(path, write)
