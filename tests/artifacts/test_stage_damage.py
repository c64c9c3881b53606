"""What a disk or a person does to the files of a stage: the unit is done again, or a sentence says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.small_stage import INPUTS, begin, tree, work

from comem_ray.artifacts import ArtifactError


def harm(path: Path, how: str) -> None:
    """Damages a file: cut short, away, or one bit flipped in its middle, with the same size and times."""
    if how == "cut":
        os.truncate(path, path.stat().st_size - 1)
    elif how == "gone":
        path.unlink()
    else:
        times, data = path.stat(), bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("how", ["cut", "gone", "flipped"])
def test_a_unit_whose_file_is_cut_gone_or_changed_is_done_again(
    tmp_path: Path, uninterrupted: dict[str, bytes], how: str
) -> None:
    stage = begin(tmp_path / "harmed")
    work(stage, INPUTS)
    stage.close(INPUTS)
    unit = list(INPUTS)[2]
    file = stage.find(f"{unit}.parquet")
    assert file is not None
    harm(file, how)
    assert set(stage.damaged(stage.records())) == {unit}
    assert work(stage, INPUTS) == [unit]
    stage.close(INPUTS)
    assert tree(stage.path) == uninterrupted


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_stage_does_not_close_over_a_file_that_is_cut_or_gone(tmp_path: Path, how: str) -> None:
    stage = begin(tmp_path)
    work(stage, INPUTS)
    unit = list(INPUTS)[2]
    file = stage.find(f"{unit}.parquet")
    assert file is not None
    harm(file, how)
    with pytest.raises(ArtifactError, match=f"1 of 4 units are unfinished, the first is {unit}"):
        stage.close(INPUTS)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '{"unit": "x"}', '{"unit": "x", "inputs": "", "shards": [{}], "counts": {}}', "\0"],
)
def test_a_damaged_record_is_a_unit_that_is_not_done(
    tmp_path: Path, uninterrupted: dict[str, bytes], text: str
) -> None:
    stage = begin(tmp_path / "record")
    work(stage, INPUTS)
    stage.close(INPUTS)
    unit = list(INPUTS)[1]
    (stage.path / "records" / f"{unit}.json").write_text(text, encoding="utf-8")
    assert work(begin(stage.path), INPUTS) == [unit]
    stage.close(INPUTS)
    assert tree(stage.path) == uninterrupted


def test_a_record_under_the_name_of_another_unit_is_a_unit_that_is_not_done(tmp_path: Path) -> None:
    stage = begin(tmp_path)
    work(stage, INPUTS)
    first, second, *_ = INPUTS
    records = tmp_path / "records"
    (records / f"{second}.json").write_bytes((records / f"{first}.json").read_bytes())
    assert work(stage, INPUTS) == [second]


@pytest.mark.parametrize("text", ["", "[1]", '{"stage": "items"}', "null", '{"stage": "items", "identity": 3}'])
def test_a_damaged_stage_file_is_named_with_what_to_do(tmp_path: Path, text: str) -> None:
    stage = begin(tmp_path)
    work(stage, INPUTS)
    (tmp_path / "stage.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"stage\.json is damaged .* delete this file and run again"):
        begin(tmp_path)
    (tmp_path / "stage.json").unlink()
    assert work(begin(tmp_path), INPUTS) == []
