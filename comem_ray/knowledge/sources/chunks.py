"""Chunks: a source file cut into numbered batches of rows. Any process can parse a batch, without the others.

One chunk makes one unit of the items stage. The digest of a chunk identifies its rows, in any file format. Knows
nothing of duplicates, images or Ray.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from comem_ray.knowledge.sources import (
    clip_retrieval,
    hf_dataset,
    image_folder,
    img2dataset,
    jsonl,
    webdataset,
    wit_parquet,
    wit_tsv,
)
from comem_ray.knowledge.sources.files import SourceFile
from comem_ray.knowledge.sources.rows import ParsedRow, Row

PATH_FORMATS = {"wit_tsv": wit_tsv, "wit_parquet": wit_parquet, "jsonl": jsonl}
NAMED_FORMATS = {
    "webdataset": webdataset,
    "img2dataset": img2dataset,
    "hf_dataset": hf_dataset,
    "image_folder": image_folder,
    "clip_retrieval": clip_retrieval,
}
"""Formats whose rows are named values (named_rows.py): the source may say what their columns are called."""
RELATED = {
    "img2dataset": img2dataset.related,
    "image_folder": image_folder.related,
    "clip_retrieval": clip_retrieval.related,
}
RULES = 2  # version of the reading rules: one more whenever a file would be cut or parsed in another way


@dataclass(frozen=True)
class Chunk:
    """A batch of rows; `first_row` is the number of its first row in the file, from 0."""

    number: int
    first_row: int
    batch: pa.RecordBatch


def read_chunks(file: SourceFile, rows: int) -> Iterator[Chunk]:
    """Streams a file in chunks of at most `rows` rows. Damaged content makes rejected rows, never an exception."""
    first_row = 0
    if file.format in PATH_FORMATS:
        batches = PATH_FORMATS[file.format].read(Path(file.path), rows)
    else:
        batches = NAMED_FORMATS[file.format].read(file, rows)
    for number, batch in enumerate(batches):
        yield Chunk(number, first_row, batch)
        first_row += wit_parquet.count_rows(batch) if file.format == "wit_parquet" else batch.num_rows


def parse_batch(format: str, batch: pa.RecordBatch) -> list[ParsedRow]:
    """The rows of a chunk's batch: the bytes of each in the file, with the Row or the RowFault made of them."""
    return list({**PATH_FORMATS, **NAMED_FORMATS}[format].parse(batch))


def related_files(file: SourceFile) -> list[Path]:
    """Further files that the rows of `file` are read from, present or not."""
    return RELATED[file.format](file) if file.format in RELATED else []


def rows_digest(rows: list[ParsedRow]) -> str:
    """SHA-256 (hex) of the rows of a chunk: their bytes, their item ids or faults, and the images in them."""
    digest = hashlib.sha256()
    for raw, row in rows:
        digest.update(b"%d:" % len(raw) + raw)
        digest.update((row.item_id if isinstance(row, Row) else row.reason).encode())
        if isinstance(row, Row):
            for part in (row.image, row.image_embedding, row.text_embedding):
                if isinstance(part, bytes):
                    digest.update(part)
    return digest.hexdigest()


def to_bytes(batch: pa.RecordBatch) -> bytes:
    """A batch as Arrow IPC bytes, to send it to another process."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def from_bytes(data: bytes | pa.Buffer) -> pa.RecordBatch:
    """The batch of the bytes that `to_bytes` made."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_next_batch()
