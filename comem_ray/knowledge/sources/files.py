"""The files that a run reads: the sources of the configuration with globs and folders resolved, in a fixed order.

Of the files it opens only the small ones that list the shards of a folder.
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
from comem_ray.knowledge.sources.folders import Shard, folder_shards

ENDINGS = {
    ".tsv": "wit_tsv",
    ".tsv.gz": "wit_tsv",
    ".parquet": "wit_parquet",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".tar": "webdataset",
    ".tar.gz": "webdataset",
    ".tgz": "webdataset",
    ".arrow": "hf_dataset",
}
FIXED_COLUMNS = ("wit_tsv", "wit_parquet", "jsonl")

LABEL_CHARS = 100
LIVE = "live"


@dataclass(frozen=True)
class SourceFile:
    """One file to read, or a folder of format image_folder. `label` names it in units and scans.

    Relative image paths start from `images`. `live`: it is the live source (`sources.live`), whose files come and go
    under ever new names. `columns` are pairs of a field of an item and the column that holds it. `clip_model` and
    `clip_pretrained` made the ready embeddings of the format clip_retrieval.
    """

    label: str
    path: str
    format: str
    images: str
    live: bool = False
    columns: tuple[tuple[str, str], ...] = ()
    clip_model: str | None = None
    clip_pretrained: str | None = None

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
            if path.is_dir():
                shards = folder_shards(path, source.format, f"{field}.path")
                base = path
            else:
                shards = [Shard(path, source.format if source.format != "auto" else _format(path, f"{field}.format"))]
                base = path.parent
            for shard in shards:
                files.append(_source_file(source, shard, base, files, field))
    return files


def _source_file(source: SourceConfig, shard: Shard, base: Path, files: Sequence[SourceFile], field: str) -> SourceFile:
    if source.columns and shard.format in FIXED_COLUMNS:
        raise ConfigError(f"field {field}.columns: format {shard.format} has fixed columns, leave them out")
    return SourceFile(
        label=unused_label(shard.name or shard.path.name, files),
        path=str(shard.path),
        format=shard.format,
        images=_images(source, base, f"{field}.images"),
        columns=tuple(sorted(source.columns.items())),
        clip_model=source.clip_model,
        clip_pretrained=source.clip_pretrained,
    )


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
    return paths


def _format(path: Path, field: str) -> str:
    for ending, kind in ENDINGS.items():
        if path.name.lower().endswith(ending):
            return kind
    raise ConfigError(f"field {field}: the ending of {path.name} names no format; set one, such as wit_tsv or jsonl")


def _images(source: SourceConfig, base: Path, field: str) -> str:
    if source.images is None:
        return str(base)
    folder = resolve(source.images)
    if not folder.is_dir():
        raise ConfigError(f"field {field}: {folder} is not a folder{home_hint(folder)}")
    return str(folder)
