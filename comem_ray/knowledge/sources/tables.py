"""Record batches of a parquet or an Arrow file, a few rows at a time, and their rows as dictionaries.

A damaged row group costs itself alone; a damaged Arrow stream costs the rest of its file. A text that is not UTF-8
costs its row. Knows nothing of columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.knowledge.sources.rows import RowFault

READ_ROWS = 64  # parquet rows read at a time
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
_FILE_MAGIC = b"ARROW1"


def parquet_batches(path: Path, names: Set[str]) -> Iterator[pa.RecordBatch | RowFault]:
    """The rows of a parquet file, of the columns in `names` alone."""
    try:
        # A small buffer: by default a whole column of a row group, with all its images, is read at once.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
    except (pa.ArrowException, OSError) as error:
        yield broken(error, "parquet_corrupt", "the file is not parquet, or its footer is damaged")
        return
    with file:
        columns = [name for name in file.schema_arrow.names if name in names]
        for group in range(file.num_row_groups):
            batches = file.iter_batches(READ_ROWS, row_groups=[group], columns=columns, use_threads=False)
            try:
                yield from batches
            except (pa.ArrowException, OSError) as error:
                yield broken(error, "parquet_corrupt", f"row group {group} is damaged, the rest of it is lost")


def arrow_batches(path: Path) -> Iterator[pa.RecordBatch | RowFault]:
    """The record batches of an Arrow file, of the stream format or the file format; they are mapped, not copied."""
    try:
        with pa.memory_map(str(path)) as source:
            if source.read(len(_FILE_MAGIC)) == _FILE_MAGIC:
                with pa.ipc.open_file(source) as reader:
                    yield from (reader.get_batch(n) for n in range(reader.num_record_batches))
                return
            source.seek(0)
            with pa.ipc.open_stream(source) as reader:
                yield from reader
        with open(path, "rb") as file:
            file.seek(-len(_STREAM_END), 2)
            if file.read() != _STREAM_END:
                yield RowFault("arrow_corrupt", "the Arrow stream has no end: the file is cut short, the rest is lost")
    except (pa.ArrowException, OSError, StopIteration) as error:
        detail = "the file is not an Arrow stream, or it is damaged or cut short: the rest is lost"
        yield broken(error, "arrow_corrupt", detail)


def rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | RowFault]:
    """The rows of a batch, one at a time."""
    for n in range(batch.num_rows):
        try:
            (row,) = batch.slice(n, 1).to_pylist()
            yield row
        except UnicodeDecodeError:
            yield RowFault("bad_utf8", "a text of the row is not UTF-8")


def broken(error: Exception, reason: str, detail: str) -> RowFault:
    """The fault of a file that cannot be read on: `reason`, or source_unreadable where the system refuses."""
    # The system's errors have a number; pyarrow raises OSErrors without one for damaged bytes.
    if isinstance(error, OSError) and error.errno:
        return RowFault("source_unreadable", f"the file cannot be read: {error.strerror}", True)
    return RowFault(reason, detail)
