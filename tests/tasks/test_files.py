"""Readers of files: what is read, what is said about a broken row, and what about a broken file."""

from __future__ import annotations

import gzip

import pytest
from support.scored import document, jsonl, parquet

from comem_ray.tasks.files import (
    BROKEN_FILE,
    FileRow,
    RejectedRow,
    read_csv,
    read_json,
    read_jsonl,
    read_parquet,
    rows_of,
    strict,
)


def contents(rows):
    """Fields of the rows, reasons of those rejected."""
    return [row.reason if isinstance(row, RejectedRow) else row.fields for row in rows]


def test_broken_lines_stand_in_their_places(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"a": 1}\n{\n\n"\xff"\n[2]\n{"a": 3}')
    assert contents(read_jsonl(path)) == [{"a": 1}, "bad_json", "bad_utf8", "bad_json", {"a": 3}]
    assert [row.place.number for row in read_jsonl(path)] == [0, 1, 3, 4, 5]


def test_jsonl_that_breaks_off_keeps_what_came_before(tmp_path):
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 50)[:-9])
    *rows, last = read_jsonl(path)
    assert [row.fields for row in rows] == [{"a": 1}] * 50
    assert last.reason == "gz_truncated"
    assert last.reason in BROKEN_FILE
    assert str(last) == f"{path}: the gzip file ends too early, the rest is lost"


def test_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b\n1,"x\ny, z"\n\n2\n3,\xff\n"4"5,6\n')
    assert contents(read_csv(path)) == [{"a": "1", "b": "x\ny, z"}, "bad_csv", "bad_utf8", {"a": "45", "b": "6"}]
    assert [row.place.number for row in read_csv(path)] == [0, 2, 3, 4]


def test_json_lists(tmp_path):
    path = document(tmp_path / "a.json", {"questions": [{"a": 1}, 5]})
    rows = list(rows_of(path, "question", read_json(path)["questions"]))
    assert contents(rows) == [{"a": 1}, "bad_json"]
    assert str(rows[1]) == f"{path}, question 2: a JSON int, wanted an object"
    with pytest.raises(ValueError, match=r"a\.json: not JSON"):
        read_json(jsonl(tmp_path / "a.json", [1, 2]))


def test_a_file_that_is_not_there(tmp_path):
    readers = (read_json, read_csv, read_jsonl, lambda path: read_parquet(path, ["id"]))
    for read in readers:
        with pytest.raises(ValueError, match=r"none: .*cannot be read"):
            list(strict(read(tmp_path / "none")))


def test_parquet_reads_the_named_columns(tmp_path):
    path = parquet(tmp_path / "a.parquet", [{"id": 1, "image": b"x"}, {"id": 2, "image": b"y"}])
    assert [row.fields for row in read_parquet(path, ["id"], ["name"])] == [{"id": 1}, {"id": 2}]
    with pytest.raises(ValueError, match=r"a\.parquet: no column answer"):
        list(read_parquet(path, ["id", "answer"]))
    with pytest.raises(ValueError, match="not parquet"):
        list(read_parquet(jsonl(tmp_path / "b.parquet", [{"id": 1}]), ["id"]))


def test_fields_are_what_they_must_be(tmp_path):
    (row,) = read_jsonl(jsonl(tmp_path / "a.jsonl", [{"text": "x", "texts": ["x"], "id": 7, "flag": True}]))
    assert isinstance(row, FileRow)
    assert (row.text("text"), row.texts("texts"), row.identity("id"), row.get("none")) == ("x", ["x"], 7, None)
    for read, name in ((row.text, "id"), (row.texts, "text"), (row.identity, "flag"), (row.text, "none")):
        with pytest.raises(RejectedRow, match=f"line 1: field '{name}' is ") as caught:
            read(name)
        assert caught.value.reason == "bad_field"


def test_half_of_an_escaped_pair_is_not_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "\\ud800"}')
    (row,) = read_jsonl(path)
    with pytest.raises(RejectedRow, match="which UTF-8 cannot hold") as caught:
        row.text("text")
    assert caught.value.reason == "bad_utf8"
