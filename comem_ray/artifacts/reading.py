"""A finished stage as a reader sees it: one generation, whole, and kept on disk for as long as it is open.

A reader leaves a lease in `readers/`: a copy of the manifest, under a shared lock that ends with its process.
`StageFolder.close` deletes no file that a living reader's manifest names, and another reader can open the generation
of a living one after the stage has closed with a newer one. A shard is checked against its digest when it is first
used. Where the folder cannot be written (a read-only mount) there is no lease, and the reading goes on.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
import weakref
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import TextIO

from comem_ray.artifacts.manifest import ArtifactError, Manifest, Shard, check_shard, load_manifest

LEASES = "readers"
TRIES = 10


class OpenStage:
    """A finished stage, opened for reading. Threads may share it; it cannot be pickled.

    With `generation` that one is opened, which the stage has closed with or a living reader holds. Raises ArtifactError
    if the stage is unfinished, damaged, or another stage, or the generation is gone.
    """

    def __init__(self, folder: Path, stage: str, generation: str | None = None):
        self.folder, self.stage = folder, stage
        while True:
            self.manifest = _generation(folder, stage, generation)
            self._lease = _Lease(folder, self.manifest)
            # A stage that closed between these two lines may not have seen the lease.
            if _generation(folder, stage, generation) == self.manifest:
                break
            self._lease.release()
        self._checked: set[str] = set()
        self._lock = Lock()
        self.release = weakref.finalize(self, self._lease.release)

    def path(self, shard: Shard) -> Path:
        """The path of a shard, its bytes checked once. Raises ArtifactError, naming the file."""
        with self._lock:
            if shard.name not in self._checked:
                check_shard(self.folder, shard, self.stage)
                self._checked.add(shard.name)
        return self.folder / shard.name

    def find(self, logical_name: str) -> Path | None:
        """The path of the shard of a logical name, its bytes checked once; None if the stage has none."""
        shard = self.manifest.shard(logical_name)
        return None if shard is None else self.path(shard)


def _generation(folder: Path, stage: str, generation: str | None) -> Manifest:
    manifest = load_manifest(folder, stage)
    if generation in (None, manifest.generation):
        return manifest
    held = next((m for m in living_readers(folder) if m.generation == generation), None)
    if held is None:
        raise ArtifactError(
            f"{folder} is at generation {manifest.generation} now, and no process reads {generation} any more: "
            "start (or deploy) again, with what is there now"
        )
    return held


class _Lease:
    def __init__(self, folder: Path, manifest: Manifest):
        self.path: Path | None = folder / LEASES / f"{uuid.uuid4().hex}.json"
        text = json.dumps(asdict(manifest))
        for _ in range(TRIES):
            try:
                self.file = _locked_file(self.path, text)
                break
            except FileNotFoundError:  # the last reader before this one has just taken the folder away
                continue
            except OSError:
                self.path = None
                break
        else:
            self.path = None
        living_readers(folder)  # takes away what dead readers left

    def release(self) -> None:
        if self.path is None:
            return
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.file.close()
            self.path.parent.rmdir()  # the last reader


def _locked_file(path: Path, text: str) -> TextIO:
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(exist_ok=True)
    file = open(temporary, "w", encoding="utf-8")  # noqa: SIM115 (open as long as the lease)
    fcntl.flock(file, fcntl.LOCK_SH)
    file.write(text)
    file.flush()
    os.replace(temporary, path)  # only now is it a lease, and it is locked
    return file


def living_readers(folder: Path) -> list[Manifest]:
    """What living readers of `folder` hold. Deletes the leases of dead ones."""
    manifests = []
    for path in (folder / LEASES).glob("*"):  # those too whose process died before they were leases
        with suppress(OSError, ValueError, KeyError, TypeError), open(path, encoding="utf-8") as file:
            if _is_dead(file.fileno()):
                path.unlink(missing_ok=True)
            elif path.suffix == ".json":
                manifests.append(Manifest.of(json.load(file)))
    with suppress(OSError):
        (folder / LEASES).rmdir()
    return manifests


def _is_dead(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
