"""Parquet in the shape of `wikimedia/wit_base`: image bytes, and a struct of lists with one entry per language.

A parquet row with n entries in `wit_features` is n source rows, so up to n items that share one image. Without entries
it is one source row, which is rejected. The image is `image.bytes`, else that of `image_url`, else the file
`image.path` below the source's folder. Row groups are read one by one: a damaged one is one rejected row, and reading
goes on with the next. A missing column counts as empty; a file without `wit_features` is one rejected row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from comem_ray.knowledge.sources.framed import CHUNK_BYTES, fault_batch, is_framed, rows_of
from comem_ray.knowledge.sources.rows import ParsedRow, RowFault, make_row
from comem_ray.knowledge.sources.tables import READ_ROWS, broken

COLUMNS = ("image", "image_url", "wit_features")
TEXTS = ("language", "page_url", "page_title", "context_page_description", "context_section_description")


def read(path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """The chunks of a file, each of at most `rows` source rows (more only if a single parquet row has more)."""
    try:
        # A small buffer: by default a whole column of a row group, with all its images, is read at once.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
    except (pa.ArrowException, OSError) as error:
        yield fault_batch(broken(error, "parquet_corrupt", "the file is not parquet, or its footer is damaged"))
        return
    with file:
        columns = [name for name in COLUMNS if name in file.schema_arrow.names]
        if not _has_entries(file.schema_arrow):
            wanted = "wit_features, a struct of lists with a list named language"
            yield fault_batch(RowFault("parquet_columns", f"the file has no column {wanted}"))
            return
        for group in range(file.num_row_groups):
            yield from _group(file, group, columns, rows)


def parse(batch: pa.RecordBatch) -> Iterator[ParsedRow]:
    """The source rows of a chunk: each as JSON without its pixels, with the Row or the RowFault made of it."""
    if is_framed(batch):
        for raw, fault in rows_of(batch):
            assert fault is not None
            yield raw, fault
        return
    for n, count in enumerate(_entry_counts(batch)):
        try:
            (row,) = batch.slice(n, 1).to_pylist()
        except UnicodeDecodeError:
            yield from [(b"", RowFault("bad_utf8", "a text of the parquet row is not UTF-8"))] * count
            continue
        yield from _rows(row)


def count_rows(batch: pa.RecordBatch) -> int:
    """Source rows in a chunk."""
    return batch.num_rows if is_framed(batch) else sum(_entry_counts(batch))


def _group(file: pq.ParquetFile, group: int, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    held: list[pa.RecordBatch] = []
    taken = size = 0
    fault: RowFault | None = None
    batches = file.iter_batches(READ_ROWS, row_groups=[group], columns=columns, use_threads=False)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            fault, batch = (
                broken(error, "parquet_corrupt", f"row group {group} is damaged, the rest of it is lost"),
                None,
            )
        if batch is None:
            break
        for row, count in enumerate(_entry_counts(batch)):
            one = batch.slice(row, 1)
            if held and (taken + count > rows or size >= CHUNK_BYTES):
                yield pa.concat_batches(held)
                held, taken, size = [], 0, 0
            held.append(one)
            taken, size = taken + count, size + one.nbytes
    if held:
        yield pa.concat_batches(held)
    if fault is not None:
        yield fault_batch(fault)


def _has_entries(schema: pa.Schema) -> bool:
    if "wit_features" not in schema.names:
        return False
    kind = schema.field("wit_features").type
    if _is_list(kind):  # a list of structs: the same data as other writers lay it out
        return pa.types.is_struct(kind.value_type)
    return pa.types.is_struct(kind) and kind.get_field_index("language") >= 0 and _is_list(kind.field("language").type)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _entry_counts(batch: pa.RecordBatch) -> list[int]:
    features = batch.column("wit_features")
    lists = features if _is_list(features.type) else pc.struct_field(features, "language")
    return [max(1, n or 0) for n in pc.list_value_length(lists).to_pylist()]


def _rows(row: dict[str, Any]) -> Iterator[ParsedRow]:
    image = row.get("image")
    data, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
    url = row.get("image_url")
    for entry in _entries(row["wit_features"]):
        raw = json.dumps({"image_url": url, **entry}, ensure_ascii=True, default=str).encode()
        if not all(isinstance(value, str | None) for value in (url, path, *entry.values())):
            yield raw, RowFault("parquet_columns", "a text field holds a value that is not text")
            continue
        section = (entry.get("context_section_description") or "").strip()
        made = make_row(
            language=entry.get("language"),
            title=entry.get("page_title"),
            description=section or entry.get("context_page_description"),
            page_url=entry.get("page_url"),
            image_url=url,
            image=data or (path if not url else None),
        )
        yield raw, made


def _entries(features: Any) -> list[dict[str, Any]]:
    """The used texts of each language entry; one empty dictionary without entries."""
    if isinstance(features, dict):
        count = len(features.get("language") or ())
        columns = {name: features.get(name) or [] for name in TEXTS}
        features = [{name: values[n] for name, values in columns.items() if n < len(values)} for n in range(count)]
    return [{name: (entry or {}).get(name) for name in TEXTS} for entry in features or ()] or [{}]
