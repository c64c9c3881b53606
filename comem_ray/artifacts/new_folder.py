"""A folder that is there whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comem_ray.artifacts.files import flush_folder, storage_errors
from comem_ray.artifacts.manifest import ArtifactError


def require_new(folder: Path) -> None:
    """Raises ArtifactError where `folder` is a file, or holds something."""
    if folder.is_dir() and any(folder.iterdir()):
        raise ArtifactError(
            f"{folder} is there already and holds files: name a new folder, or take this one away first"
        )
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder} is a file: name a new folder")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which gets the name `folder` when the block ends; where it raises, nothing is left.

    It is a neighbour of `folder`, on the same filesystem. Raises ArtifactError where `folder` is a file or holds
    something, StorageError where the filesystem refuses.
    """
    require_new(folder)
    building = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    with storage_errors(folder):
        building.mkdir(parents=True)
    try:
        yield building
        require_new(folder)
        with storage_errors(folder):
            os.replace(building, folder)
            flush_folder(folder.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)
