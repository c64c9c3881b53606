"""The same values have the same bytes: parquet, JSON and fingerprints."""

import json
from pathlib import Path

import pyarrow as pa

from comem_ray.artifacts import file_sha256, fingerprint, write_json, write_parquet


def test_parquet_of_the_same_rows_has_the_same_bytes_however_they_were_chunked(tmp_path: Path) -> None:
    table = pa.table({"n": list(range(70)), "text": [f"row {i}" for i in range(70)]})
    write_parquet(tmp_path / "a", table)
    write_parquet(tmp_path / "b", pa.concat_tables([table.slice(0, 1), table.slice(1)]))
    assert file_sha256(tmp_path / "a") == file_sha256(tmp_path / "b")


def test_json_is_readable_sorted_and_keeps_its_letters(tmp_path: Path) -> None:
    write_json(tmp_path / "f.json", {"b": "Österreich", "a": 1})
    text = (tmp_path / "f.json").read_text(encoding="utf-8")
    assert text == '{\n  "a": 1,\n  "b": "Österreich"\n}\n'
    assert json.loads(text) == {"a": 1, "b": "Österreich"}


def test_the_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert (
        fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1}) != fingerprint({"a": 1, "b": [2, 1]})
    )
