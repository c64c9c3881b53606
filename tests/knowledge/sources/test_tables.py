import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from comem_ray.knowledge.sources.rows import RowFault
from comem_ray.knowledge.sources.tables import arrow_batches, broken, parquet_batches, rows_of

TABLE = pa.table({"n": list(range(100)), "text": [f"text {n}" for n in range(100)], "other": [None] * 100})


def rows(batches) -> list:
    return [row for b in batches for row in ([b.reason] if isinstance(b, RowFault) else rows_of(b))]


def test_parquet_gives_the_named_columns(tmp_path):
    pq.write_table(TABLE, tmp_path / "a.parquet", row_group_size=30)
    read = rows(parquet_batches(tmp_path / "a.parquet", {"text", "n", "absent"}))
    assert read == [{"n": n, "text": f"text {n}"} for n in range(100)]


def test_a_damaged_row_group_costs_itself(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path, row_group_size=25, compression="snappy")
    start = pq.read_metadata(path).row_group(1).column(1).dictionary_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(bytes(data))
    read = rows(parquet_batches(path, {"n", "text"}))
    assert read.count("parquet_corrupt") == 1
    assert {"n": 24, "text": "text 24"} in read
    assert read[-1] == {"n": 99, "text": "text 99"}


@pytest.mark.parametrize("form", [pa.ipc.new_stream, pa.ipc.new_file])
def test_arrow_of_both_forms(tmp_path, form):
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, form(sink, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=30)
    assert rows(arrow_batches(tmp_path / "a.arrow")) == TABLE.to_pylist()


def test_a_cut_arrow_stream_gives_what_comes_before(tmp_path):
    path = tmp_path / "a.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=30)
    whole = path.read_bytes()
    for cut in (8, 100):  # the end of the stream alone, and a part of the last batch
        path.write_bytes(whole[:-cut])
        read = rows(arrow_batches(path))
        assert read[:90] == TABLE.to_pylist()[:90]
        assert read[-1] == "arrow_corrupt"


@pytest.mark.parametrize("data", [b"", b"something else entirely"])
@pytest.mark.parametrize("read", [arrow_batches, lambda path: parquet_batches(path, {"n"})])
def test_another_file_is_one_fault(tmp_path, read, data):
    (tmp_path / "a").write_bytes(data)
    (fault,) = read(tmp_path / "a")
    assert fault.reason in ("arrow_corrupt", "parquet_corrupt")
    (fault,) = read(tmp_path / "none")
    assert (fault.reason, fault.retryable) == ("source_unreadable", True)


def test_text_that_is_not_utf8_costs_its_row():
    column = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    read = list(rows_of(pa.record_batch({"text": column})))
    assert [r.reason if isinstance(r, RowFault) else r["text"] for r in read] == ["a", "bad_utf8", "c"]


def test_the_systems_refusals_may_pass():
    assert broken(OSError(5, "Input/output error"), "x", "y") == RowFault(
        "source_unreadable", "the file cannot be read: Input/output error", True
    )
    assert broken(OSError("bad"), "x", "y") == RowFault("x", "y")
