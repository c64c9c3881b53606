"""Files of predictions and references: what is read, and what is said about a fault."""

from __future__ import annotations

import pytest
from support.scored import jsonl, parquet

from comem_ray.tasks.records import read_jsonl, read_parquet, read_predictions

GOOD = b'{"data_id": "a", "prediction": "x"}\n'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD + b"{\n", "line 2: not JSON"),
        (GOOD + b"\n[1]\n", "line 3: a JSON list, wanted an object"),
        (GOOD + b'{"data_id": "\xff"}\n', "line 2: byte 13 is no UTF-8"),
        (b'{"data_id": "a"}\n', "line 1: field 'prediction' is missing"),
        (b'{"data_id": "a", "prediction": null}\n', "field 'prediction' is None, wanted a string"),
        (b'{"data_id": true, "prediction": "x"}\n', "field 'data_id' is True"),
        (b'{"prediction": "x"}\n', "field 'data_id' is missing"),
        (GOOD + GOOD, "line 2: a second prediction for data_id 'a'"),
        (GOOD.replace(b'"a"', b"7") + GOOD.replace(b'"a"', b'"7"'), "a second prediction for data_id '7'"),
    ],
)  # fmt: skip
def test_a_broken_line_is_named(tmp_path, content, said):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"p\.jsonl, ") as caught:
        read_predictions(path)
    assert said in str(caught.value)


def test_lines_end_at_newlines_alone(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes("﻿".encode() + '{"data_id": 7, "prediction": "a\u2028b"}\r\n\r\n'.encode())
    assert read_predictions(path) == {"7": (7, "a\u2028b")}


def test_a_file_that_is_not_there(tmp_path):
    for read in (lambda path: list(read_jsonl(path)), lambda path: list(read_parquet(path, ["id"]))):
        with pytest.raises(ValueError, match="none: cannot be read"):
            read(tmp_path / "none")


def test_parquet_reads_the_named_columns(tmp_path):
    path = parquet(tmp_path / "a.parquet", [{"id": 1, "image": b"x"}, {"id": 2, "image": b"y"}])
    assert [row for _, row in read_parquet(path, ["id"])] == [{"id": 1}, {"id": 2}]
    with pytest.raises(ValueError, match=r"a\.parquet: no column answer"):
        list(read_parquet(path, ["id", "answer"]))
    with pytest.raises(ValueError, match="not parquet"):
        list(read_parquet(jsonl(tmp_path / "b.parquet", [{"id": 1}]), ["id"]))
