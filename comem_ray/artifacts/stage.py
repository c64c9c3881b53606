"""The folder that a stage writes to: units, their commit records, and the manifest that is written last.

A stage works on *units*. One unit makes one or more output files. A unit is finished when its record `<unit>.json` is
in `records/`. The record is written after the files, and every file is written atomically. So a process that is killed
at any point leaves either a finished unit or none. A rerun keeps the finished units whose inputs are unchanged and
whose files are as they were written.

`manifest.json` closes the stage and is the only thing that readers look at: until a rerun closes, they see the
generation before it, whole. It holds nothing that changes between runs (no times), so a stage that was killed and run
again ends with the same bytes. Knows nothing of Ray or of what the shards hold.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from comem_ray.artifacts.files import file_sha256, move, storage_errors, write_json
from comem_ray.artifacts.manifest import (
    ArtifactError,
    Manifest,
    Record,
    Shard,
    check_shard,
    damage,
    name_with_digest,
    read_manifest,
)
from comem_ray.artifacts.reading import LEASES, living_readers

SHARDS = (".parquet", ".safetensors")
CHECKERS = 8  # threads that read and hash files; hashing leaves Python's lock


class StageFolder:
    """The folder that a stage writes to. It can be pickled, so that workers commit their own units.

    Raises ArtifactError if the folder was started with another `identity`; the message names the fields that differ.
    Fields in `versions` may differ: a stage whose units name them in their inputs makes those units again.
    """

    def __init__(self, path: Path, stage: str, identity: Mapping[str, Any], versions: Collection[str] = ()):
        self.path, self.stage, self.identity = path, stage, json.loads(json.dumps(dict(identity)))
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        stored = self._stored()
        if stored is not None:
            self._refuse_other(stored, versions)
        own = {"stage": self.stage, "identity": self.identity}
        if stored != own:
            write_json(path / "stage.json", own)

    def _stored(self) -> dict[str, Any] | None:
        path = self.path / "stage.json"
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return {"stage": str(stored["stage"]), "identity": dict(stored["identity"])}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{path} is damaged ({error!r}), so it does not say which configuration made {self.path}. If it is the "
                "one of now, delete this file and run again: finished units are kept. Else delete the folder"
            ) from error

    def _refuse_other(self, stored: dict[str, Any], versions: Collection[str]) -> None:
        old = {"stage": stored["stage"], **stored["identity"]}
        new = {"stage": self.stage, **self.identity}
        differing = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k) and k not in versions]
        if differing:
            changes = "; ".join(f"{k}: stored {old.get(k)!r}, now {new.get(k)!r}" for k in differing)
            raise ArtifactError(
                f"{self.path} was started with another configuration ({changes}). "
                "Name another folder (root), go back to that configuration, or delete the folder"
            )

    def commit(self, unit: str, inputs: str, files: Mapping[str, int], counts: Mapping[str, int]) -> Record:
        """Declares `unit` finished. `files` maps the logical names of its files, written before, to their row counts.

        The files get their digests into their names. What an earlier generation holds stays as it is.
        """
        shards = [self._named(name, rows) for name, rows in sorted(files.items())]
        record = Record(unit, inputs, shards, dict(counts))
        write_json(self._record_path(unit), asdict(record))
        return record

    def _named(self, name: str, rows: int) -> Shard:
        path = self.path / name
        sha256 = file_sha256(path)
        shard = Shard(name_with_digest(name, sha256), rows, path.stat().st_size, sha256)
        with storage_errors(path):
            move(path, self.path / shard.name)
        return shard

    def find(self, logical_name: str) -> Path | None:
        """The path of a committed file by its logical name, its bytes checked; None if no unit has it."""
        shards = (s for record in self.records() if (s := record.shard(logical_name)) is not None)
        shard = next(shards, None)
        return None if shard is None else check_shard(self.path, shard, self.stage)

    def finished(self, inputs: Mapping[str, str]) -> dict[str, Record]:
        """Records of the units in `inputs` (unit -> digest of its inputs) that need no more work, in that order.

        Left out are units made from other inputs, units whose record cannot be read, and units whose files are gone,
        cut short or changed: every file is read and compared with its SHA-256.
        """
        records = {r.unit: r for r in self.records() if inputs.get(r.unit) == r.inputs}
        damaged = self.damaged(records.values())
        return {unit: records[unit] for unit in inputs if unit in records and unit not in damaged}

    def damaged(self, records: Iterable[Record]) -> dict[str, str]:
        """What is wrong, by unit, with the files of `records`; whole ones are left out."""

        def fault(record: Record) -> str:
            faults = ((self.path / s.name, damage(self.path, s)) for s in record.shards)
            return "; ".join(f"{path} {fault}" for path, fault in faults if fault)

        records = list(records)
        with ThreadPoolExecutor(CHECKERS) as threads:
            return {r.unit: fault for r, fault in zip(records, threads.map(fault, records), strict=True) if fault}

    def records(self) -> list[Record]:
        """All commit records, in the order of their names. One that cannot be read is a unit that is not finished."""
        records = []
        for path in sorted((self.path / "records").glob("*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                record = Record.of(json.loads(path.read_text(encoding="utf-8")))
                if path == self._record_path(record.unit):
                    records.append(record)
        return records

    def earlier(self) -> list[Shard]:
        """Every shard that is on disk: of the generation before, of the run under way, and of a unit killed too early.

        Their rows may be taken over. Files are not compared with their digests here.
        """
        shards = {s.name: s for r in [*self.records(), *self._before()] for s in r.shards}
        for path in self.path.rglob("*"):
            name = str(path.relative_to(self.path))
            if name not in shards and path.suffix in SHARDS and not path.name.startswith(".") and path.is_file():
                shards[name] = Shard(name, 0, path.stat().st_size, file_sha256(path))
        return [s for s in shards.values() if Path(s.name).suffix in SHARDS and (self.path / s.name).is_file()]

    def _before(self) -> list[Record]:
        """The records of the generation that readers open now."""
        try:
            return read_manifest(self.path, self.stage).records
        except ArtifactError:
            return []

    def _record_path(self, unit: str) -> Path:
        return self.path / "records" / f"{unit}.json"

    def _has_files(self, record: Record) -> bool:
        paths = [(self.path / s.name, s.bytes) for s in record.shards]
        return all(p.exists() and p.stat().st_size == size for p, size in paths)

    def close(
        self,
        units: Iterable[str],
        extra: Mapping[str, Any] | None = None,
        made_from: Mapping[str, Manifest] | None = None,
    ) -> Manifest:
        """Writes the manifest of exactly `units`, in that order: from now on readers open this generation.

        `made_from`: manifests of the stages it was made from, by folder name. Then deletes temporary files, records of
        other units, and the files of earlier generations that no reader holds. Raises ArtifactError if a unit has no
        record, or if its files are gone or cut short.
        """
        wanted = list(units)
        records = {r.unit: r for r in self.records()}
        kept = [records[unit] for unit in wanted if unit in records and self._has_files(records[unit])]
        if missing := [unit for unit in wanted if unit not in {r.unit for r in kept}]:
            raise ArtifactError(
                f"{self.path}: {len(missing)} of {len(wanted)} units are unfinished, the first is {missing[0]}"
            )
        counts = Counter[str]()
        for record in kept:
            counts.update(record.counts)
        sources = {name: manifest.fingerprint for name, manifest in (made_from or {}).items()}
        extra = {**(extra or {}), **({"made_from": sources} if sources else {})}
        manifest = Manifest(self.stage, self.identity, dict(counts), kept, extra)
        kinds = _kinds([*records.values(), *self._before()])
        write_json(self.path / "manifest.json", asdict(manifest))
        self._delete_others(manifest, kinds)
        return manifest

    def _delete_others(self, manifest: Manifest, kinds: set[tuple[Path, str]]) -> None:
        """Deletes files that no kept unit and no reader names: of dropped units, of earlier tries and generations."""
        units = {r.unit for r in manifest.records}
        for path in (self.path / "records").glob("*.json"):
            if path.stem not in units:
                path.unlink(missing_ok=True)
        held = [manifest, *living_readers(self.path)]
        names = {s.name for m in held for s in m.shards()} | {"stage.json", "manifest.json"}
        for parent, suffix in kinds:
            for path in (self.path / parent).glob(f"*{suffix}"):
                if path.is_file() and str(parent / path.name) not in names:
                    path.unlink(missing_ok=True)
        for leftover in self.path.rglob(".*.tmp"):
            if leftover.parent.name != LEASES:
                leftover.unlink(missing_ok=True)


def _kinds(records: Iterable[Record]) -> set[tuple[Path, str]]:
    """Folder and ending of the files of `records`."""
    return {(Path(s.name).parent, Path(s.name).suffix) for r in records for s in r.shards if Path(s.name).suffix}
