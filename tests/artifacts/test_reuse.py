"""Which earlier files hold the rows that a unit needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from comem_ray.artifacts import write_parquet
from comem_ray.artifacts.reuse import files_holding, hex_ids, parquet_ids


def ids(*numbers: int) -> np.ndarray:
    return np.array([f"{n:024x}".encode() for n in numbers], "S24")


def test_a_unit_gets_the_files_that_hold_one_of_its_rows_and_no_other() -> None:
    files = {"a": ids(5, 1), "b": ids(2, 3), "c": ids(9), "d": ids(1)}
    wanted = {"one": ids(1, 2), "two": ids(9), "three": ids(7), "none": ids()}
    assert files_holding(wanted, files) == {"one": ["a", "b", "d"], "two": ["c"], "three": [], "none": []}
    assert files_holding(wanted, {}) == {name: [] for name in wanted}


def test_rows_that_moved_are_looked_up_in_two_files() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.permutation(1_000)
    files = {f"old-{i}": ids(*numbers[100 * i : 100 * i + 100]) for i in range(10)}
    moved = [1_000, *numbers]  # one row in front
    wanted = {f"new-{i}": ids(*moved[100 * i : 100 * i + 100]) for i in range(11)}
    holding = files_holding(wanted, files)
    assert [len(holding[f"new-{i}"]) for i in range(11)] == [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]


def test_the_ids_of_a_shard_are_read_and_of_a_damaged_one_there_are_none(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", pa.table({"item_id": [f"{7:024x}", None]}))
    assert parquet_ids(tmp_path / "a.parquet").tolist() == [f"{7:024x}".encode(), b""]
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-4])
    write_parquet(tmp_path / "c.parquet", pa.table({"other": [1]}))
    for name in ("b.parquet", "c.parquet", "nowhere.parquet"):
        assert len(parquet_ids(tmp_path / name)) == 0


def test_digests_and_their_hex_digits_are_the_same_ids() -> None:
    identities = np.random.default_rng(1).integers(0, 256, (50, 12), np.uint8)
    assert hex_ids(identities).tolist() == [row.tobytes().hex().encode() for row in identities]
