"""The shards of a folder that is one source: which format it has, and its files in order.

hf_dataset        state.json (or dataset_dict.json with a folder for each split), as `save_to_disk` leaves it
clip_retrieval    metadata/metadata_*.parquet and img_emb/
img2dataset       00000.parquet, 00001.parquet, ... beside tars or folders of images; tars without it are webdataset
image_folder      anything else that holds images: the folder itself is the one shard
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from comem_ray.config import ConfigError
from comem_ray.knowledge.sources.keyed import IMAGE_ENDINGS

FOLDER_FORMATS = ("hf_dataset", "clip_retrieval", "img2dataset", "webdataset", "image_folder")
_SHARD = re.compile(r"\d{5,}")


@dataclass(frozen=True)
class Shard:
    """A file to read, or the folder of an image_folder. `name` is what its label is made of; "": the file's name."""

    path: Path
    format: str
    name: str = ""


def folder_shards(folder: Path, format: str, field: str) -> list[Shard]:
    """The shards of a folder, in order. `format` may be auto.

    Raises ConfigError, naming `field`, where the folder is not of that format.
    """
    kind = _format(folder, field) if format == "auto" else format
    if kind == "image_folder":
        shards = [Shard(folder, kind)]
    elif kind in FOLDER_FORMATS:
        finders = {"hf_dataset": _arrow, "clip_retrieval": _metadata, "img2dataset": _img2dataset, "webdataset": _tars}
        shards = finders[kind](folder, field)
    else:
        raise ConfigError(
            f"field {field}: {folder} is a folder, and {kind} is a format of files: name a glob such as {folder}/*, or "
            f"one of the formats of folders ({', '.join(FOLDER_FORMATS)})"
        )
    if not shards:
        raise ConfigError(f"field {field}: {folder} is not a folder of format {kind}: it holds {_content(folder)}")
    return shards


def _format(folder: Path, field: str) -> str:
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        return "hf_dataset"
    if (folder / "img_emb").is_dir() and (folder / "metadata").is_dir():
        return "clip_retrieval"
    if _numbered(folder):
        return "img2dataset"
    if any(folder.glob("*.tar")):
        return "webdataset"
    if any(path.suffix[1:].lower() in IMAGE_ENDINGS for path in folder.rglob("*")):
        return "image_folder"
    raise ConfigError(
        f"field {field}: {folder} is a folder without images, tars or a dataset: it holds {_content(folder)}. Name a "
        f"file or a glob such as {folder}/*.tsv.gz"
    )


def _numbered(folder: Path) -> list[str]:
    """The numbers of an img2dataset folder's shards."""
    stems = {path.stem for ending in ("parquet", "tar") for path in folder.glob(f"*.{ending}")}
    return sorted(stem for stem in stems if _SHARD.fullmatch(stem))


def _img2dataset(folder: Path, field: str) -> list[Shard]:
    shards = []
    for number in _numbered(folder):
        metadata, tar = folder / f"{number}.parquet", folder / f"{number}.tar"
        path, kind = (metadata, "img2dataset") if metadata.is_file() else (tar, "webdataset")
        shards.append(Shard(path, kind, f"{folder.name}_{number}"))
    return shards


def _tars(folder: Path, field: str) -> list[Shard]:
    return [Shard(path, "webdataset", f"{folder.name}_{path.stem}") for path in sorted(folder.glob("*.tar"))]


def _metadata(folder: Path, field: str) -> list[Shard]:
    files = folder.glob("metadata/metadata_*.parquet")

    def order(path: Path) -> tuple[int, str]:
        number = path.stem.removeprefix("metadata_")
        return (int(number) if number.isdecimal() else 0, path.name)

    return [Shard(path, "clip_retrieval", f"{folder.name}_{path.stem}") for path in sorted(files, key=order)]


def _arrow(folder: Path, field: str) -> list[Shard]:
    parts = folder / "dataset_dict.json"
    splits = map(str, _listed(parts, "splits", field)) if parts.is_file() else [""]
    shards = []
    for split in splits:
        state = folder / split / "state.json"
        for entry in _listed(state, "_data_files", field):
            name = entry.get("filename") if isinstance(entry, dict) else None
            if not isinstance(name, str) or Path(name).name != name:
                raise ConfigError(f"field {field}: {state} lists {entry!r}, wanted the name of an Arrow file")
            label = "_".join(part for part in (folder.name, split, Path(name).stem) if part)
            shards.append(Shard(folder / split / name, "hf_dataset", label))
    return shards


def _listed(path: Path, key: str, field: str) -> list[object]:
    """The list in a JSON file that `save_to_disk` wrote."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))[key]
        if not isinstance(value, list):
            raise TypeError(f"{key} is not a list")
        return value
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"field {field}: {path} is missing or damaged ({error!r}): it lists the shards of a dataset on disk, "
            "write the dataset again with save_to_disk"
        ) from error


def _content(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "") if names else "nothing"
