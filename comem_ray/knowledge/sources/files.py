"""The files that a run reads: the sources of the configuration with their globs resolved, in a fixed order.

Opens no file.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from comem_ray.config import ConfigError, SourceConfig
from comem_ray.home import home_hint, resolve

ENDINGS = {".tsv": "wit_tsv", ".tsv.gz": "wit_tsv", ".parquet": "wit_parquet", ".jsonl": "jsonl", ".jsonl.gz": "jsonl"}

LABEL_CHARS = 100
LIVE = "live"


@dataclass(frozen=True)
class SourceFile:
    """One file to read. `label` names it in units and scans. Relative image paths start from `images`.

    `live`: it is the live source (`sources.live`), whose files come and go under ever new names.
    """

    label: str
    path: str
    format: str
    images: str
    live: bool = False

    @property
    def name(self) -> str:
        """The file's name without its folder, as items and rejected rows carry it; of the live source always "live"."""
        return LIVE if self.live else os.path.basename(self.path)


def source_files(sources: Sequence[SourceConfig]) -> list[SourceFile]:
    """The files of `sources`, each glob sorted by name. Raises ConfigError if one matches no file."""
    files: list[SourceFile] = []
    for n, source in enumerate(sources):
        field = f"ingest.sources.{n}"
        for path in _matches(source.path, f"{field}.path"):
            kind = source.format if source.format != "auto" else _format(path, f"{field}.format")
            label = unused_label(path.name, files)
            files.append(SourceFile(label, str(path), kind, _images(source, path, f"{field}.images")))
    return files


def unused_label(name: str, files: Sequence[SourceFile]) -> str:
    """The file name `name` without its ending, so that a file keeps its label whatever is read beside it.

    Where one of `files` has that label already, ~2, ~3, ... follows.
    """
    taken = {file.label for file in files}
    ending = next((e for e in sorted(ENDINGS, key=len, reverse=True) if name.lower().endswith(e)), "")
    label = re.sub(r"[^\w.-]+", "_", name[: len(name) - len(ending)], flags=re.ASCII)[:LABEL_CHARS] or "file"
    return next(unused for n in count(1) if (unused := label if n == 1 else f"{label}~{n}") not in taken)


def _matches(value: str, field: str) -> list[Path]:
    path = resolve(value)
    paths = [path] if path.exists() else [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
    if not paths:
        raise ConfigError(f"field {field}: {value!r} matches no file: {path} does not exist{home_hint(path)}")
    if folders := [p for p in paths if p.is_dir()]:
        raise ConfigError(f"field {field}: {folders[0]} is a folder, wanted a file or a glob such as {value}/*.tsv.gz")
    return paths


def _format(path: Path, field: str) -> str:
    for ending, kind in ENDINGS.items():
        if path.name.lower().endswith(ending):
            return kind
    raise ConfigError(f"field {field}: the ending of {path.name} names no format; set wit_tsv, wit_parquet or jsonl")


def _images(source: SourceConfig, path: Path, field: str) -> str:
    if source.images is None:
        return str(path.parent)
    folder = resolve(source.images)
    if not folder.is_dir():
        raise ConfigError(f"field {field}: {folder} is not a folder{home_hint(folder)}")
    return str(folder)
