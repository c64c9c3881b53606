"""Numbered shards, their commit records, and the manifest that is written last.

A stage works on *units*. One unit makes one or more output files. A unit is finished when its record `<unit>.json` is
in `records/`. The record is written after the files, and every file is written atomically. So a process that is killed
at any point leaves either a finished unit or none. A rerun keeps the finished units whose inputs are unchanged.
`manifest.json` closes the stage. It holds nothing that changes between runs (no times), so a stage that was killed and
run again ends with the same bytes.

Knows nothing of Ray or of what the shards hold. Paths are folders on a filesystem that all nodes see.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.home import home_hint

FORMAT = 1
ROW_GROUP_ROWS = 32  # small, so that reading a single item costs little


class ArtifactError(ValueError):
    """An artifact is missing, unfinished or damaged, or another configuration or model made it."""


def fingerprint(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in pieces."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path in the same folder, flushes the file to disk, then renames it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_parquet(path: Path, table: pa.Table) -> None:
    """Writes `table` as parquet (zstd, small row groups), atomically and with the same bytes for the same rows."""
    write_atomic(path, lambda p: pq.write_table(table, p, compression="zstd", row_group_size=ROW_GROUP_ROWS))


@dataclass(frozen=True)
class Shard:
    """One output file. `name` is relative to the stage folder."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """The files and the counts of a finished unit. `inputs` is the digest of what the unit was made from."""

    unit: str
    inputs: str
    shards: list[Shard]
    counts: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """The end of a finished stage. `identity` says what made it, `extra` holds the stage's own facts."""

    stage: str
    identity: dict[str, Any]
    counts: dict[str, int]
    records: list[Record]
    extra: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """Digest (hex) of what made the stage (configuration, model) and of every file in it."""
        return fingerprint([self.stage, self.identity, [asdict(r) for r in self.records], self.extra])

    def shards(self, suffix: str = "") -> list[Shard]:
        """The files of all units in unit order, only those whose name ends with `suffix`."""
        return [s for r in self.records for s in r.shards if s.name.endswith(suffix)]


def load_manifest(folder: Path, stage: str) -> Manifest:
    """Reads the manifest of a finished stage. Raises ArtifactError if it is missing, damaged or of another stage."""
    path = folder / "manifest.json"
    if not path.exists():
        raise ArtifactError(
            f"{folder} has no manifest.json: run the stage '{stage}' to its end first{home_hint(folder)}"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged ({error}): run the stage '{stage}' again") from error
    if data.get("format") != FORMAT or data.get("stage") != stage:
        raise ArtifactError(
            f"{path} is stage '{data.get('stage')}' in format {data.get('format')}, wanted '{stage}' in format {FORMAT}"
        )
    records = [_record(r) for r in data["records"]]
    return Manifest(stage, data["identity"], data["counts"], records, data["extra"])


class StageFolder:
    """The folder that a stage writes to. It can be pickled, so that workers commit their own units.

    Raises ArtifactError if the folder was started with another `identity`; the message names the fields that differ.
    """

    def __init__(self, path: Path, stage: str, identity: Mapping[str, Any]):
        self.path, self.stage, self.identity = path, stage, json.loads(json.dumps(dict(identity)))
        path.mkdir(parents=True, exist_ok=True)
        stage_file = path / "stage.json"
        if stage_file.exists():
            self._refuse_other(json.loads(stage_file.read_text(encoding="utf-8")))
        else:
            write_json(stage_file, {"stage": stage, "identity": self.identity})

    def _refuse_other(self, stored: dict[str, Any]) -> None:
        old = {"stage": stored["stage"], **stored["identity"]}
        new = {"stage": self.stage, **self.identity}
        differing = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
        if differing:
            changes = "; ".join(f"{k}: stored {old.get(k)!r}, now {new.get(k)!r}" for k in differing)
            raise ArtifactError(
                f"{self.path} was started with another configuration ({changes}). "
                "Name another folder (root), go back to that configuration, or delete the folder"
            )

    def commit(self, unit: str, inputs: str, files: Mapping[str, int], counts: Mapping[str, int]) -> Record:
        """Declares `unit` finished. `files` maps the names of its files, written before, to their row counts."""
        self._withdraw_manifest()
        shards = [
            Shard(name, rows, (self.path / name).stat().st_size, file_sha256(self.path / name))
            for name, rows in sorted(files.items())
        ]
        record = Record(unit, inputs, shards, dict(counts))
        write_json(self.path / "records" / f"{unit}.json", asdict(record))
        return record

    def withdraw(self, unit: str) -> None:
        """Removes the record of `unit`, whose files are about to be replaced."""
        self._withdraw_manifest()
        (self.path / "records" / f"{unit}.json").unlink(missing_ok=True)

    def finished(self, inputs: Mapping[str, str]) -> dict[str, Record]:
        """Records of the units in `inputs` (unit -> digest of its inputs) that need no more work.

        Left out are units made from other inputs, and units whose files are gone or cut short. If work is left, the
        manifest of an earlier run is removed, because the files will no longer be those it lists.
        """
        kept = {r.unit: r for r in self.records() if inputs.get(r.unit) == r.inputs and self._whole(r)}
        if kept.keys() != inputs.keys():
            self._withdraw_manifest()
        return kept

    def _withdraw_manifest(self) -> None:
        (self.path / "manifest.json").unlink(missing_ok=True)

    def records(self) -> list[Record]:
        """All commit records, in unit order."""
        paths = sorted((self.path / "records").glob("*.json"))
        return [_record(json.loads(p.read_text(encoding="utf-8"))) for p in paths]

    def _whole(self, record: Record) -> bool:
        paths = [(self.path / s.name, s.bytes) for s in record.shards]
        return all(p.exists() and p.stat().st_size == size for p, size in paths)

    def close(self, units: Iterable[str], extra: Mapping[str, Any] | None = None) -> Manifest:
        """Writes the manifest of exactly `units`. Deletes temporary files, and the records and files of other units.

        Raises ArtifactError if a unit has no record, or if its files are gone or cut short.
        """
        wanted = set(units)
        records = self.records()
        kept = [r for r in records if r.unit in wanted and self._whole(r)]
        if missing := sorted(wanted - {r.unit for r in kept}):
            raise ArtifactError(
                f"{self.path}: {len(missing)} of {len(wanted)} units are unfinished, the first is {missing[0]}"
            )
        self._drop(records, kept)
        counts = Counter[str]()
        for record in kept:
            counts.update(record.counts)
        manifest = Manifest(self.stage, self.identity, dict(counts), kept, dict(extra or {}))
        write_json(self.path / "manifest.json", asdict(manifest))
        return manifest

    def _drop(self, records: list[Record], kept: list[Record]) -> None:
        """Deletes files that belong to no kept unit: of dropped units, of earlier tries, of tries killed too early."""
        units = {r.unit for r in kept}
        for record in records:
            if record.unit not in units:
                (self.path / "records" / f"{record.unit}.json").unlink(missing_ok=True)
        names = {s.name for r in kept for s in r.shards} | {"stage.json", "manifest.json"}
        kinds = {(Path(s.name).parent, Path(s.name).suffix) for r in records for s in r.shards if Path(s.name).suffix}
        for parent, suffix in kinds:
            for path in (self.path / parent).glob(f"*{suffix}"):
                if path.is_file() and str(parent / path.name) not in names:
                    path.unlink(missing_ok=True)
        for leftover in self.path.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)


def _record(data: dict[str, Any]) -> Record:
    return Record(data["unit"], data["inputs"], [Shard(**s) for s in data["shards"]], data["counts"])
