"""The images of questions: looked up by name in folders, zips or parquet files, read when their question is asked.

An image has its name, or an id and any usual ending. Looking it up reads no image; a name that leads out of the folder
names none. Knows no task.
"""

from __future__ import annotations

import unicodedata
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ENDINGS = (".jpg", ".JPEG", ".jpeg", ".JPG", ".png", ".PNG", ".webp")
KEYS = ("image_id", "file_name", "id", "ID", "data_id", "question_id")  # columns that may name a row's image
COLUMNS = ("image", "picture", "bytes")  # columns that may hold it


@dataclass(frozen=True)
class ImageAt:
    """Where an image's bytes are: a file; an `entry` of a zip; `row` of parquet, its column in `entry`.

    `mark` changes where the image was replaced: the size of the file, or a digest.
    """

    file: str
    entry: str = ""
    row: int = -1
    mark: str = ""


class ImageFolder:
    """Looks names up in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()

    def find(self, names: Sequence[str]) -> ImageAt | None:
        """The first of `names` that is a file of the folder, as it stands or with one of ENDINGS."""
        for name in _variants(names):
            try:
                path = (self.folder / name).resolve()
                if path.is_relative_to(self.folder) and path.is_file():
                    return ImageAt(str(path), mark=str(path.stat().st_size))
            except (OSError, ValueError, RuntimeError):  # a name too long, a null byte, a loop of links
                continue
        return None


class ImageZip:
    """Looks names up among the entries of a zip, by their whole name or by what follows its last slash."""

    def __init__(self, path: Path):
        self.folder = path

    def find(self, names: Sequence[str]) -> ImageAt | None:
        """The first of `names` that is an entry, as it stands or with one of ENDINGS."""
        entry = next((entry for name in _variants(names) if (entry := self._entries.get(name))), None)
        return None if entry is None else ImageAt(str(self.folder), entry.filename, mark=f"{entry.CRC:08x}")

    @cached_property
    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        with zipfile.ZipFile(self.folder) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        short = {entry.filename.rpartition("/")[2]: entry for entry in reversed(entries)}
        return short | {entry.filename: entry for entry in entries}


class ImageParquet:
    """Looks names up in parquet files: by the `path` that stands beside the bytes, and by the columns KEYS."""

    def __init__(self, paths: Sequence[Path]):
        self.folder, self._paths = paths[0].parent, paths

    def find(self, names: Sequence[str]) -> ImageAt | None:
        """The first of `names` that a row has, with an ending or without."""
        return next((row for name in _variants(names) if (row := self._rows.get(name))), None)

    @cached_property
    def _rows(self) -> dict[str, ImageAt]:
        rows: dict[str, ImageAt] = {}
        for path in self._paths:
            with pq.ParquetFile(path) as file:
                column = next((c for c in COLUMNS if c in file.schema_arrow.names), None)
                if column is None:
                    raise ValueError(f"{path}: no column {' or '.join(COLUMNS)} with images")
                columns = [c for c in KEYS if c in file.schema_arrow.names]
                if pa.types.is_struct(file.schema_arrow.field(column).type):
                    columns.append(f"{column}.path")
                table = file.read(columns=columns).to_pylist()
            mark = str(path.stat().st_size)
            for number, row in enumerate(table):
                for name in _keys(row, column):
                    rows.setdefault(name, ImageAt(str(path), column, number, mark))
        return rows


class ImageSources:
    """Looks names up in several places, in their order."""

    def __init__(self, sources: Sequence[ImageFolder | ImageZip | ImageParquet]):
        self.folder, self._sources = sources[0].folder, sources

    def find(self, names: Sequence[str]) -> ImageAt | None:
        """The first of `names` in the first place that has one of them."""
        return next((at for source in self._sources if (at := source.find(names)) is not None), None)


Images = ImageFolder | ImageZip | ImageParquet | ImageSources


def images_at(paths: Sequence[Path]) -> Images:
    """What the paths are: folders, zips, or parquet files. ValueError says what would be right."""
    if missing := [p for p in paths if not p.exists()]:
        raise ValueError(f"images: {missing[0]} is not there")
    tables = [p for p in paths if p.is_file() and p.suffix == ".parquet"]
    sources: list[ImageFolder | ImageZip | ImageParquet] = [ImageParquet(tables)] if tables else []
    for path in paths:
        if path.is_dir():
            sources.append(ImageFolder(path))
        elif path not in tables and zipfile.is_zipfile(path):
            sources.append(ImageZip(path))
        elif path not in tables:
            raise ValueError(f"images: want a folder, a zip, or parquet files (one or several), got {path}")
    return sources[0] if len(sources) == 1 else ImageSources(sources)


def image_of_row(path: Path, row: int) -> ImageAt:
    """The image in the column `image` of a row of a parquet file."""
    return ImageAt(str(path), "image", row, str(path.stat().st_size))


class ImageReader:
    """Reads images, keeping the last zip and the last row group of parquet, which neighbours share."""

    def __init__(self) -> None:
        self._zip: tuple[str, zipfile.ZipFile] | None = None
        self._group: tuple[tuple[str, str, int], list[Any]] | None = None

    def read(self, at: ImageAt) -> bytes:
        """The bytes; empty for a row without. Raises OSError or ValueError where they cannot be read."""
        if at.row >= 0:
            return self._read_row(at)
        if not at.entry:
            return Path(at.file).read_bytes()
        try:
            if self._zip is None or self._zip[0] != at.file:
                self._zip = at.file, zipfile.ZipFile(at.file)
            return self._zip[1].read(at.entry)
        except OSError:
            raise
        except Exception as error:  # damaged or encrypted: BadZipFile, zlib.error, EOFError, RuntimeError, ...
            raise ValueError(f"{at.entry}: {error}") from error

    def _read_row(self, at: ImageAt) -> bytes:
        with pq.ParquetFile(at.file) as file:
            group, row = 0, at.row
            while row >= (rows := file.metadata.row_group(group).num_rows):
                group, row = group + 1, row - rows
            if self._group is None or self._group[0] != (at.file, at.entry, group):
                values = file.read_row_group(group, columns=[at.entry]).column(0).to_pylist()
                self._group = (at.file, at.entry, group), values
        value = self._group[1][row]
        return (value.get("bytes") if isinstance(value, dict) else value) or b""


def _variants(names: Sequence[str]) -> list[str]:
    """The names, composed and decomposed (a disk may have either form of an accent), and with each ending."""
    forms = [unicodedata.normalize(form, name) for name in names if not name.isascii() for form in ("NFC", "NFD")]
    spellings = list(dict.fromkeys([*names, *forms]))
    return [*spellings, *(name + ending for name in spellings for ending in ENDINGS)]


def _keys(row: dict[str, Any], column: str) -> list[str]:
    value = row.pop(column, None)
    path = value.get("path") if isinstance(value, dict) else None
    names = [str(key) for key in row.values() if key is not None]
    if path:
        short = str(path).rpartition("/")[2]
        names += [str(path), short, short.rpartition(".")[0]]
    return [name for name in names if name]
