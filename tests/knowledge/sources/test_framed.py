"""Batches of rows with their faults."""

import pyarrow as pa

from comem_ray.knowledge.sources import framed
from comem_ray.knowledge.sources.framed import batches, fault_batch, is_framed, rows_of
from comem_ray.knowledge.sources.lines import RAW_BYTES
from comem_ray.knowledge.sources.rows import RowFault

FAULT = RowFault("row_too_long", "the line is too long", True)


def test_rows_and_faults_come_back_in_batches_of_the_limit():
    rows = [(b"a", None), (b"b", FAULT), (b"", None), (b"d", None), (b"e", None)]
    parts = list(batches(iter(rows), 2, {"columns": "x"}))
    assert [part.num_rows for part in parts] == [2, 2, 1]
    assert [row for part in parts for row in rows_of(part)] == rows
    assert all(part.schema.metadata[b"columns"] == b"x" for part in parts)


def test_a_batch_ends_at_its_bytes_too(monkeypatch):
    monkeypatch.setattr(framed, "CHUNK_BYTES", 10)
    assert [part.num_rows for part in batches(iter([(b"x" * 6, None)] * 5), 100, {})] == [2, 2, 1]


def test_a_faulty_row_keeps_the_start_of_its_bytes():
    (part,) = batches(iter([(b"y" * 9_000, FAULT), (b"z" * 9_000, None)]), 10, {})
    assert [len(raw) for raw, _ in rows_of(part)] == [RAW_BYTES, 9_000]


def test_only_the_batches_of_this_module_are_framed():
    assert list(rows_of(fault_batch(FAULT))) == [(b"", FAULT)]
    assert is_framed(fault_batch(FAULT))
    assert not is_framed(pa.record_batch({"raw": [b"a"]}))
