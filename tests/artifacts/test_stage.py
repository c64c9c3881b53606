"""Numbered shards: whatever kills a stage, finished units stay, unfinished ones are none, and the end is the same."""

from __future__ import annotations

import hashlib
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.small_stage import IDENTITY, INPUTS, begin, rows_of, tree, work

from comem_ray.artifacts import ArtifactError, OpenStage, StageFolder, load_manifest, write_parquet


def test_a_stage_lists_its_files_and_adds_up_its_counts(tmp_path: Path) -> None:
    stage = begin(tmp_path)
    assert work(stage, INPUTS) == list(INPUTS)
    closed = stage.close(INPUTS, {"width": 4})
    manifest = load_manifest(tmp_path, "items")
    assert manifest == closed
    assert manifest.counts == {"items": 12}
    assert manifest.extra == {"width": 4}
    assert manifest.identity == IDENTITY
    assert [s.logical_name for s in manifest.shards(".parquet")] == [f"{unit}.parquet" for unit in INPUTS]
    assert manifest.shards(".safetensors") == []
    for shard in manifest.shards():
        data = (tmp_path / shard.name).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert pq.read_metadata(tmp_path / shard.name).num_rows == shard.rows


def test_a_finished_stage_has_nothing_left_to_do_and_keeps_its_bytes(
    tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    stage = begin(tmp_path / "again")
    work(stage, INPUTS)
    stage.close(INPUTS)
    again = begin(tmp_path / "again")
    assert work(again, INPUTS) == []
    again.close(INPUTS)
    assert tree(again.path) == uninterrupted


@pytest.mark.parametrize("done", range(len(INPUTS) + 1))
def test_stopped_after_any_unit_and_run_again_it_ends_with_the_same_bytes(
    tmp_path: Path, uninterrupted: dict[str, bytes], done: int
) -> None:
    stopped = begin(tmp_path / "stopped")
    work(stopped, dict(list(INPUTS.items())[:done]))
    rerun = begin(tmp_path / "stopped")
    assert work(rerun, INPUTS) == list(INPUTS)[done:]
    rerun.close(INPUTS)
    assert tree(rerun.path) == uninterrupted


KILLED = """
import os, signal, sys
from pathlib import Path
from comem_ray.artifacts import files
sys.path.insert(0, sys.argv[2])
from support.small_stage import INPUTS, begin, work

real, calls = os.replace, 0
def replace(source, target):
    # The process dies before or after the `at`-th file is moved into place: between two files, or file and record.
    global calls
    calls += 1
    if calls > int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
files.os.replace = replace
stage = begin(Path(sys.argv[1]))
work(stage, INPUTS)
stage.close(INPUTS)
"""


@pytest.mark.parametrize("moved", [0, 1, 2, 3, 4, 8, 13])
def test_killed_before_any_file_or_record_is_in_place_it_ends_with_the_same_bytes(
    tmp_path: Path, uninterrupted: dict[str, bytes], moved: int
) -> None:
    """14 moves in a run: stage.json, 4 shards (into place, then to the name with a digest), 4 records, the manifest."""
    tests = Path(__file__).parents[1]
    folder = tmp_path / "killed"
    child = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(tests), str(moved)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert not (folder / "manifest.json").exists()
    assert len(list(folder.rglob(".*.tmp"))) <= 1
    stage = begin(folder)
    assert work(stage, INPUTS) == list(INPUTS)[max(0, moved - 1) // 3 :]
    stage.close(INPUTS)
    assert tree(folder) == uninterrupted


def test_a_file_without_its_record_is_not_a_finished_unit(tmp_path: Path) -> None:
    stage = begin(tmp_path)
    unit = next(iter(INPUTS))
    write_parquet(tmp_path / f"{unit}.parquet", rows_of(unit, INPUTS[unit]))
    assert stage.finished(INPUTS) == {}


def test_only_the_unit_whose_inputs_changed_is_done_again(tmp_path: Path) -> None:
    stage = begin(tmp_path)
    work(stage, INPUTS)
    before = stage.close(INPUTS)
    unit = list(INPUTS)[1]
    changed = {**INPUTS, unit: "other"}
    assert work(stage, changed) == [unit]
    after = stage.close(changed)
    differing = [old.unit for old, new in zip(before.records, after.records, strict=True) if old != new]
    assert differing == [unit]
    assert after.fingerprint != before.fingerprint


def test_a_reader_sees_one_whole_generation_until_it_leaves(tmp_path: Path) -> None:
    stage = begin(tmp_path)
    work(stage, INPUTS)
    before = stage.close(INPUTS)
    reader = OpenStage(tmp_path, "items")
    unit = list(INPUTS)[1]
    changed = {**INPUTS, unit: "other"}
    assert work(stage, changed) == [unit]
    assert load_manifest(tmp_path, "items") == before  # until the stage closes, a new reader sees the same
    after = stage.close(changed)
    assert load_manifest(tmp_path, "items") == after
    for shard in before.shards():
        assert hashlib.sha256(reader.path(shard).read_bytes()).hexdigest() == shard.sha256
    old = {s.name for s in before.shards()} - {s.name for s in after.shards()}
    assert len(old) == 1
    reader.release()
    stage.close(changed)
    assert not any((tmp_path / name).exists() for name in old)
    assert {name for name in tree(tmp_path) if name.endswith(".parquet")} == {s.name for s in after.shards()}


def test_rows_of_the_generation_before_and_of_the_run_under_way_can_be_taken_over(tmp_path: Path) -> None:
    stage = begin(tmp_path)
    work(stage, INPUTS)
    before = stage.close(INPUTS)
    unit = list(INPUTS)[1]
    work(stage, {**INPUTS, unit: "other"})
    write_parquet(tmp_path / "killed-before-its-commit.parquet", rows_of("x", "y"))
    names = {shard.name for shard in stage.earlier()}
    assert names > {s.name for s in before.shards()}
    assert len(names) == len(INPUTS) + 2


def test_units_no_longer_wanted_leave_no_record_and_no_file(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    stage = begin(tmp_path / "shrunk")
    more = {**INPUTS, "part-0009-000000": "x"}
    work(stage, more)
    stage.close(more)
    assert work(stage, INPUTS) == []
    stage.close(INPUTS)
    assert tree(stage.path) == uninterrupted


def test_files_of_a_unit_killed_before_its_record_and_never_redone_are_dropped(
    tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    stage = begin(tmp_path / "orphan")
    write_parquet(stage.path / "part-0009-000000.parquet", rows_of("part-0009-000000", "x"))
    work(stage, INPUTS)
    stage.close(INPUTS)
    assert tree(stage.path) == uninterrupted


def test_a_unit_redone_with_fewer_files_leaves_none_of_the_old(tmp_path: Path) -> None:
    stage = begin(tmp_path)
    table = rows_of("u", "x")
    for name in ("u.parquet", "rejected/u.parquet"):
        write_parquet(tmp_path / name, table)
    stage.commit("u", "x", {"u.parquet": 3, "rejected/u.parquet": 3}, {})
    (tmp_path / "README.txt").write_text("a file of the user's", encoding="utf-8")
    write_parquet(tmp_path / "rejected/u.parquet", table)
    stage.commit("v", "x", {"rejected/u.parquet": 3}, {})
    (tmp_path / "rejected" / "old.parquet").write_bytes(b"orphan")
    stage.close(["v"])
    assert [re.sub(r"\.[0-9a-f]{12}", "", name) for name in sorted(tree(tmp_path))] == [
        "README.txt",
        "manifest.json",
        "records/v.json",
        "rejected/u.parquet",
        "stage.json",
    ]


def test_closing_with_a_unit_unfinished_names_it_and_writes_no_manifest(tmp_path: Path) -> None:
    stage = begin(tmp_path)
    work(stage, dict(list(INPUTS.items())[:3]))
    with pytest.raises(ArtifactError, match="1 of 4 units are unfinished, the first is part-0000-000003"):
        stage.close(INPUTS)
    assert not (tmp_path / "manifest.json").exists()


def test_another_configuration_is_refused_with_the_fields_that_differ(tmp_path: Path) -> None:
    begin(tmp_path, {"model": "tiny", "width": 4, "seed": 0})
    with pytest.raises(ArtifactError) as refused:
        begin(tmp_path, {"model": "large", "width": 4, "queries": 8})
    message = str(refused.value)
    assert "model: stored 'tiny', now 'large'" in message
    assert "seed: stored 0, now None" in message
    assert "queries: stored None, now 8" in message
    assert "width" not in message
    assert str(tmp_path) in message


def test_a_field_that_is_a_version_may_change_and_is_written_down(tmp_path: Path) -> None:
    begin(tmp_path, {"rules": 1, "width": 4})
    StageFolder(tmp_path, "items", {"rules": 2, "width": 4}, versions=["rules"])
    with pytest.raises(ArtifactError, match="rules: stored 2, now 1"):
        begin(tmp_path, {"rules": 1, "width": 4})


def test_another_stage_is_refused(tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(ArtifactError, match="stage: stored 'items', now 'memory'"):
        StageFolder(tmp_path, "memory", IDENTITY)


def test_the_same_configuration_in_other_python_types_is_the_same(tmp_path: Path) -> None:
    begin(tmp_path, {"limits": (1, 2), "width": 4})
    begin(tmp_path, {"width": 4, "limits": [1, 2]})


def test_a_worker_commits_for_the_driver(tmp_path: Path) -> None:
    stage = begin(tmp_path)
    worker = pickle.loads(pickle.dumps(stage))
    assert work(worker, INPUTS) == list(INPUTS)
    assert set(stage.finished(INPUTS)) == set(INPUTS)


def test_the_fingerprint_follows_files_identity_and_extra(tmp_path: Path) -> None:
    def closed(name: str, identity: Mapping[str, Any], inputs: Mapping[str, str], extra: Mapping[str, Any]) -> str:
        stage = begin(tmp_path / name, identity)
        work(stage, inputs)
        return stage.close(inputs, extra).fingerprint

    same: Sequence[str] = [closed(name, IDENTITY, INPUTS, {"a": 1}) for name in ("one", "two")]
    other = [
        closed("identity", {**IDENTITY, "width": 8}, INPUTS, {"a": 1}),
        closed("files", IDENTITY, {**INPUTS, "part-0000-000003": "other"}, {"a": 1}),
        closed("extra", IDENTITY, INPUTS, {"a": 2}),
    ]
    assert same[0] == same[1]
    assert len({same[0], *other}) == 4
