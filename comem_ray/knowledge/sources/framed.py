"""Chunks of the line formats: record batches of rows as they are in the file, with the faults that reading found.

Knows nothing of columns or JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from comem_ray.knowledge.sources.lines import RAW_BYTES
from comem_ray.knowledge.sources.rows import RowFault

FramedRow = tuple[bytes, RowFault | None]
"""The bytes of a row, with its fault if reading alone finds one."""

CHUNK_BYTES = 64 * 2**20  # a chunk ends at its last row or here, whichever comes first
SCHEMA = pa.schema(
    [
        pa.field("raw", pa.binary(), nullable=False),
        pa.field("fault", pa.string()),  # the reason, null without a fault
        pa.field("detail", pa.string()),
        pa.field("retryable", pa.bool_()),
    ]
)


def batches(rows: Iterator[FramedRow], limit: int, metadata: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
    """Cuts rows into batches of at most `limit` rows, whose schema carries `metadata`."""
    schema = SCHEMA.with_metadata(dict(metadata))
    held: list[FramedRow] = []
    size = 0
    for raw, fault in rows:
        held.append((raw if fault is None else raw[:RAW_BYTES], fault))
        size += len(raw)
        if len(held) == limit or size >= CHUNK_BYTES:
            yield _batch(held, schema)
            held, size = [], 0
    if held:
        yield _batch(held, schema)


def fault_batch(fault: RowFault) -> pa.RecordBatch:
    """A chunk of one row, which holds `fault`."""
    return _batch([(b"", fault)], SCHEMA)


def is_framed(batch: pa.RecordBatch) -> bool:
    """Whether this module made the batch."""
    return batch.schema.names == SCHEMA.names


def rows_of(batch: pa.RecordBatch) -> Iterator[FramedRow]:
    """The rows of a batch, as they went into `batches`."""
    raws, reasons, details, retryables = (column.to_pylist() for column in batch.columns)
    for raw, reason, detail, retryable in zip(raws, reasons, details, retryables, strict=True):
        yield raw, None if reason is None else RowFault(reason, detail, retryable)


def _batch(rows: list[FramedRow], schema: pa.Schema) -> pa.RecordBatch:
    faults = [fault for _, fault in rows]
    columns = [
        [raw for raw, _ in rows],
        [f and f.reason for f in faults],
        [f and f.detail for f in faults],
        [f and f.retryable for f in faults],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
