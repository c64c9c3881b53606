"""Embedding folders of clip-retrieval: rows that bring their CLIP embeddings along.

    metadata/metadata_0.parquet     `image_path`, `caption` and further columns, one row per image
    img_emb/img_emb_0.npy           (rows, C), in the same order
    text_emb/text_emb_0.npy         the same of the captions, if texts were embedded

The image of a row is `image_path` below the source's folder of images. Where that is a bare key, as clip-retrieval
writes it of webdataset tars, it is that image of the tars in this folder (`000010023` in `00001.tar`). Else it is
fetched from `url`. Embeddings become float16 of length 1. One that is not finite, or zero, rejects its row. Both files
must have as many rows as the parquet: where they do not, nothing of the shard is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.config import ClipConfig, ConfigError
from comem_ray.knowledge.sources.files import SourceFile
from comem_ray.knowledge.sources.named_rows import NamedRow, batches, fault_row, parse, used_names
from comem_ray.knowledge.sources.rows import RowFault
from comem_ray.knowledge.sources.tables import parquet_batches, rows_of
from comem_ray.knowledge.sources.tars import TarImages

__all__ = ["parse", "read", "refuse_other_clip", "related"]

_KEY = re.compile(r"\d{9,}")  # img2dataset's key: 5 digits of the shard or more, 4 of the row in it


def related(file: SourceFile) -> list[Path]:
    """Files whose change is a change of the shard."""
    return [*_vector_files(file), *sorted(Path(file.images).glob("*.tar"))]


def refuse_other_clip(files: Sequence[SourceFile], clip: ClipConfig, width: int) -> None:
    """Raises ConfigError where ready embeddings are not of the run's CLIP model, or not of its width C."""
    for file in files:
        made_by = (file.clip_model, file.clip_pretrained)
        if made_by != (clip.model, clip.pretrained):
            raise ConfigError(
                f"{file.path}: ready embeddings want the CLIP model that made them. The source says clip_model "
                f"{made_by[0]!r}, clip_pretrained {made_by[1]!r}; the run has clip.model {clip.model!r}, "
                f"clip.pretrained {clip.pretrained!r}: they must be equal"
            )
        for path in _vector_files(file):
            vectors = _load(path)
            if isinstance(vectors, np.ndarray) and vectors.shape[1] != width:
                raise ConfigError(
                    f"{path} holds embeddings of width {vectors.shape[1]}, clip.model {clip.model!r} makes {width}: "
                    "name the model that made them"
                )


def read(file: SourceFile, rows: int) -> Iterator[pa.RecordBatch]:
    """The chunks of a shard, each of at most `rows` rows of its parquet."""
    return batches(_rows(file), rows, file.columns)


def _vector_files(file: SourceFile) -> list[Path]:
    """The files of the vectors of images and of texts, present or not."""
    metadata = Path(file.path)
    number = metadata.stem.removeprefix("metadata_")
    return [metadata.parents[1] / f"{kind}_emb" / f"{kind}_emb_{number}.npy" for kind in ("img", "text")]


def _load(path: Path) -> np.ndarray | RowFault | None:
    """The vectors (rows, C), mapped; None if there is no such file."""
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            return RowFault("source_unreadable", f"{path.name} cannot be read: {error.strerror}", True)
        return RowFault("embedding_corrupt", f"{path.name} is not a whole .npy file")
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        return RowFault("embedding_corrupt", f"{path.name} holds {vectors.dtype} {vectors.shape}, wanted floats (n, C)")
    return vectors


def _rows(file: SourceFile) -> Iterator[NamedRow]:
    path = Path(file.path)
    image_path, text_path = _vector_files(file)
    images, texts = _load(image_path), _load(text_path)
    if images is None:
        yield fault_row("embedding_missing", f"there is no {image_path.parent.name}/{image_path.name}")
        return
    for vectors, name in ((images, image_path.name), (texts, text_path.name)):
        if isinstance(vectors, RowFault):
            yield NamedRow({}, fault=vectors)
            return
        try:
            count = pq.read_metadata(path).num_rows
        except (pa.ArrowException, OSError):
            break  # what is wrong with it is said below
        if vectors is not None and len(vectors) != count:
            yield fault_row("embedding_rows", f"{name} has {len(vectors):,} rows, {path.name} has {count:,}")
            return
    assert isinstance(images, np.ndarray)
    yield from _paired(file, images, texts if isinstance(texts, np.ndarray) else None)


def _paired(file: SourceFile, images: np.ndarray, texts: np.ndarray | None) -> Iterator[NamedRow]:
    named = dict(file.columns).get("image", "image_path")
    tars = _Tars(Path(file.images))
    group_rows, position = _group_starts(Path(file.path)), 0
    for batch in parquet_batches(Path(file.path), used_names(file.columns) | {named}):
        if isinstance(batch, RowFault):
            yield NamedRow({}, fault=batch)
            # The rest of a damaged row group has embeddings too: they are passed over.
            position = next((start for start in group_rows if start > position), len(images))
            continue
        for row in rows_of(batch):
            if isinstance(row, RowFault):
                yield NamedRow({}, fault=row)
            else:
                text = None if texts is None else texts[position]
                yield _named(row, named, tars, images[position], text)
            position += 1
    if position == 0:
        yield fault_row("source_empty", "the shard has no row")


def _group_starts(path: Path) -> list[int]:
    """The first row of each row group."""
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return []
    return np.cumsum([0, *(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))]).tolist()


def _named(
    row: dict[str, Any], name: str, tars: _Tars, image_vector: np.ndarray, text_vector: np.ndarray | None
) -> NamedRow:
    image_embedding = _unit(image_vector)
    text_embedding = None if text_vector is None else _unit(text_vector)
    for embedding in (image_embedding, text_embedding):
        if isinstance(embedding, RowFault):
            return NamedRow(row, fault=embedding)
    image = tars.read(key) if _KEY.fullmatch(key := str(row.get(name))) else None
    if isinstance(image, RowFault):
        if not row.get("url"):
            return NamedRow(row, fault=image)
        row, image = {**row, name: None}, None  # a bare key is not a path: its url is
    assert not isinstance(image_embedding, RowFault)
    assert not isinstance(text_embedding, RowFault)
    return NamedRow(row, image, image_embedding, text_embedding)


def _unit(vector: np.ndarray) -> bytes | RowFault:
    """The bytes of a vector as float16 of length 1."""
    wide = vector.astype(np.float32)
    norm = float(np.linalg.norm(wide))
    if not np.isfinite(norm):
        return RowFault("embedding_not_finite", "the embedding holds NaN or infinity")
    if norm == 0:
        return RowFault("embedding_zero", "the embedding is all zeros")
    return (wide / norm).astype(np.float16).tobytes()


class _Tars:
    """The images of the tars in a folder, by img2dataset's keys. One tar is open at a time."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._open: tuple[str, TarImages | None] = ("", None)

    def read(self, key: str) -> bytes | RowFault:
        """The image of a key."""
        shard = key[:-4]
        if shard != self._open[0]:
            path = self._folder / f"{shard}.tar"
            self._open = (shard, TarImages(path) if path.is_file() else None)
        if self._open[1] is None:
            detail = f"the key {key} is of {shard}.tar, which is not there: name the tars' folder in sources[].images"
            return RowFault("image_missing", detail)
        return self._open[1].read(key)
