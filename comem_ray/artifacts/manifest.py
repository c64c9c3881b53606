"""What a finished stage says of itself: the manifest, its records, and the shards with their digests.

A shard's file name holds the beginning of its SHA-256 (`part-000001.4f1a09c2d3be.parquet`). A file that has a name
never changes: another content is another file, and the manifest says which one counts. The name without the digest is
the shard's *logical* name. Files of version 0.2 have no digest in their names, and are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from comem_ray.artifacts.files import file_sha256
from comem_ray.home import home_hint

FORMAT = 1
_DIGEST = re.compile(r"\.[0-9a-f]{12}(\.[^./]+)$")


class ArtifactError(ValueError):
    """An artifact is missing, unfinished or damaged, or another configuration or model made it."""


def fingerprint(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def name_with_digest(name: str, sha256: str) -> str:
    """The name of a file whose logical name is `name`: 12 digits of its digest in front of the ending."""
    path = Path(name)
    return str(path.with_name(f"{path.stem}.{sha256[:12]}{path.suffix}"))


@dataclass(frozen=True)
class Shard:
    """One output file. `name` is relative to the stage folder."""

    name: str
    rows: int
    bytes: int
    sha256: str

    @property
    def logical_name(self) -> str:
        """The name without the digest."""
        return _DIGEST.sub(r"\1", self.name)


@dataclass(frozen=True)
class Record:
    """The files and the counts of a finished unit. `inputs` is the digest of what the unit was made from."""

    unit: str
    inputs: str
    shards: list[Shard]
    counts: dict[str, int]

    def shard(self, logical_name: str) -> Shard | None:
        """The shard of a logical name, None if the unit has none."""
        return next((s for s in self.shards if s.logical_name == logical_name), None)

    @classmethod
    def of(cls, data: Any) -> Record:
        """The record of its JSON. Raises KeyError, TypeError or AttributeError for another shape."""
        shards = [Shard(str(s["name"]), int(s["rows"]), int(s["bytes"]), str(s["sha256"])) for s in data["shards"]]
        return cls(str(data["unit"]), str(data["inputs"]), shards, {str(k): int(v) for k, v in data["counts"].items()})


@dataclass(frozen=True)
class Manifest:
    """The end of a finished stage. `identity` says what made it, `extra` holds the stage's own facts."""

    stage: str
    identity: dict[str, Any]
    counts: dict[str, int]
    records: list[Record]
    extra: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def of(cls, data: Any) -> Manifest:
        """The manifest of its JSON. Raises KeyError, TypeError, ValueError or AttributeError for another shape."""
        records = [Record.of(r) for r in data["records"]]
        return cls(str(data["stage"]), dict(data["identity"]), dict(data["counts"]), records, dict(data["extra"]))

    @property
    def fingerprint(self) -> str:
        """Digest (hex) of what made the stage (configuration, model) and of every file in it."""
        return fingerprint([self.stage, self.identity, [asdict(r) for r in self.records], self.extra])

    @property
    def generation(self) -> str:
        """The fingerprint's first 12 digits: the name of what a reader reads."""
        return self.fingerprint[:12]

    @property
    def made_from(self) -> dict[str, str]:
        """Fingerprints, by folder name, of the finished stages that this one was made from; {} before version 0.3."""
        return dict(self.extra.get("made_from", {}))

    def shards(self, suffix: str = "", folder: str | None = None) -> list[Shard]:
        """The files of all units, in unit order, whose name ends with `suffix`; only those in `folder` ("" is the top).

        A stage keeps what it rejects in the folder `rejected`.
        """
        every = (s for r in self.records for s in r.shards if s.name.endswith(suffix))
        return [s for s in every if folder is None or Path(s.name).parent == Path(folder)]

    def shard(self, logical_name: str) -> Shard | None:
        """The shard of a logical name, None if the stage has none."""
        return next((s for r in self.records if (s := r.shard(logical_name)) is not None), None)


def load_manifest(folder: Path, stage: str) -> Manifest:
    """Reads the manifest of a finished stage. Raises ArtifactError if it is missing, damaged or of another stage."""
    manifest = read_manifest(folder, stage)
    if manifest.stage != stage:
        raise ArtifactError(f"{folder / 'manifest.json'} is of the stage '{manifest.stage}', wanted '{stage}'")
    return manifest


def read_manifest(folder: Path, stage: str = "") -> Manifest:
    """Reads a manifest, whatever its stage; `stage` is what a message says to run. Raises ArtifactError."""
    path, name = folder / "manifest.json", stage or "?"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ArtifactError(
                f"{path} has format {data['format']}, wanted {FORMAT}: run the stage '{name}' with this version"
            )
        return Manifest.of(data)
    except (FileNotFoundError, NotADirectoryError):
        message = f"{folder} has no manifest.json: run the stage '{name}' to its end first{home_hint(folder)}"
        raise ArtifactError(message) from None
    except ArtifactError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is damaged ({error!r}): run the stage '{name}' again, it keeps what is whole"
        ) from error


def damage(folder: Path, shard: Shard) -> str:
    """What is wrong with a shard's file: "is missing", "has 10 bytes, ...", "has another content ..."; "" if nothing.

    Reads the whole file: 0.8 s per GB (BENCHMARKS.md).
    """
    path = folder / shard.name
    try:
        if (size := path.stat().st_size) != shard.bytes:
            return f"has {size:,} bytes, its record says {shard.bytes:,}"
        digest = file_sha256(path)
    except OSError as error:
        return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    if digest != shard.sha256:
        return f"is damaged: its SHA-256 begins with {digest[:12]}, its record says {shard.sha256[:12]}"
    return ""


def check_shard(folder: Path, shard: Shard, stage: str) -> Path:
    """The path of a shard whose bytes are those that were committed. Raises ArtifactError, naming the file."""
    if fault := damage(folder, shard):
        raise ArtifactError(f"{folder / shard.name} {fault}. Run the stage '{stage}' again: it makes this file again")
    return folder / shard.name


def check_made_from(**manifests: Manifest) -> None:
    """Checks that stages, given by folder name, belong together: each was made from the others as they are now.

    Raises ArtifactError with both fingerprints. A stage of version 0.2 does not say what it was made from.
    """
    for name, manifest in manifests.items():
        for source, made_from in manifest.made_from.items():
            if source in manifests and (now := manifests[source].fingerprint) != made_from:
                raise ArtifactError(
                    f"{name}/ was made from {source}/ {made_from[:12]}, but {source}/ is {now[:12]} now: they do not "
                    f"belong together. Run the stage '{manifest.stage}' again, it keeps what has not changed"
                )
