"""Which files a run reads: the sources of the configuration, globs resolved, in a fixed order.

Opens nothing.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comem_ray.config import ConfigError, SourceConfig, resolve

ENDINGS = {".tsv": "wit_tsv", ".tsv.gz": "wit_tsv", ".parquet": "wit_parquet", ".jsonl": "jsonl", ".jsonl.gz": "jsonl"}


@dataclass(frozen=True)
class SourceFile:
    """One file to read. `number` counts the files of a run; `images` is the folder its relative paths start from."""

    number: int
    path: str
    format: str
    images: str

    @property
    def name(self) -> str:
        """The file's name without its folder, as items and rejected rows carry it."""
        return os.path.basename(self.path)


def source_files(sources: Sequence[SourceConfig]) -> list[SourceFile]:
    """The files of `sources`, each glob sorted by name. Raises ConfigError where one names nothing that can be read."""
    found: list[SourceFile] = []
    for n, source in enumerate(sources):
        field = f"ingest.sources.{n}"
        for path in _matches(source.path, f"{field}.path"):
            kind = source.format if source.format != "auto" else _format(path, f"{field}.format")
            found.append(SourceFile(len(found), str(path), kind, _images(source, path, f"{field}.images")))
    return found


def _matches(value: str, field: str) -> list[Path]:
    path = resolve(value)
    paths = [path] if path.exists() else [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
    if not paths:
        raise ConfigError(f"field {field}: {value!r} matches no file (looked for {path})")
    if folders := [p for p in paths if p.is_dir()]:
        raise ConfigError(f"field {field}: {folders[0]} is a folder, wanted a file or a glob such as {value}/*.tsv.gz")
    return paths


def _format(path: Path, field: str) -> str:
    for ending, kind in ENDINGS.items():
        if path.name.lower().endswith(ending):
            return kind
    raise ConfigError(f"field {field}: cannot tell the format of {path.name}; set wit_tsv, wit_parquet or jsonl")


def _images(source: SourceConfig, path: Path, field: str) -> str:
    if source.images is None:
        return str(path.parent)
    folder = resolve(source.images)
    if not folder.is_dir():
        raise ConfigError(f"field {field}: {folder} is no folder")
    return str(folder)
