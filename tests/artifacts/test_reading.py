"""A reader holds its generation: by a lease that ends with its process, in any way that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from comem_ray.artifacts import ArtifactError, OpenStage, StageFolder, write_json
from comem_ray.artifacts.reading import LEASES, living_readers


def close_with(folder: Path, text: str) -> str:
    """Runs a little stage of one file to its end. Returns the name of the file."""
    stage = StageFolder(folder, "items", {})
    write_json(folder / "a.json", text)
    stage.commit("a", text, {"a.json": 1}, {})
    return stage.close(["a"]).shards()[0].name


READER = """
import sys, time
from pathlib import Path
from comem_ray.artifacts import OpenStage
stage = OpenStage(Path(sys.argv[1]), "items")
print("open", flush=True)
time.sleep(60)
"""


def test_files_of_a_reader_in_another_process_stay_until_it_is_killed(tmp_path: Path) -> None:
    old = close_with(tmp_path, "a")
    reader = subprocess.Popen([sys.executable, "-c", READER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    try:
        assert reader.stdout.readline() == "open\n"
        new = close_with(tmp_path, "b")
        assert (tmp_path / old).exists()
        assert [held.shards()[0].name for held in living_readers(tmp_path)] == [old]
    finally:
        os.kill(reader.pid, signal.SIGKILL)
        reader.wait()
    assert living_readers(tmp_path) == []
    close_with(tmp_path, "b")
    assert not (tmp_path / old).exists()
    assert (tmp_path / new).exists()
    assert not (tmp_path / LEASES).exists()


def test_what_a_process_left_that_died_before_it_had_a_lease_goes_too(tmp_path: Path) -> None:
    close_with(tmp_path, "a")
    (tmp_path / LEASES).mkdir()
    (tmp_path / LEASES / ".1234.json.tmp").write_text("{", encoding="utf-8")
    OpenStage(tmp_path, "items").release()
    assert not (tmp_path / LEASES).exists()


def test_a_reader_that_leaves_takes_its_lease_along(tmp_path: Path) -> None:
    name = close_with(tmp_path, "a")
    first, second = OpenStage(tmp_path, "items"), OpenStage(tmp_path, "items")
    assert {held.shards()[0].name for held in living_readers(tmp_path)} == {name}
    del first
    assert len(list((tmp_path / LEASES).iterdir())) == 1
    second.release()
    assert not (tmp_path / LEASES).exists()


def test_a_reader_of_the_old_generation_and_one_of_the_new_read_each_their_own(tmp_path: Path) -> None:
    close_with(tmp_path, "a")
    old = OpenStage(tmp_path, "items")
    close_with(tmp_path, "b")
    new = OpenStage(tmp_path, "items")
    texts = [path.read_text(encoding="utf-8") for stage in (old, new) if (path := stage.find("a.json")) is not None]
    assert texts == ['"a"\n', '"b"\n']
    assert old.manifest.generation != new.manifest.generation


def test_a_generation_can_be_opened_as_long_as_somebody_reads_it(tmp_path: Path) -> None:
    close_with(tmp_path, "a")
    first = OpenStage(tmp_path, "items")
    close_with(tmp_path, "b")
    second = OpenStage(tmp_path, "items", first.manifest.generation)
    first.release()
    third = OpenStage(tmp_path, "items", second.manifest.generation)
    path = third.find("a.json")
    assert path is not None
    assert path.read_text(encoding="utf-8") == '"a"\n'
    second.release()
    third.release()
    with pytest.raises(ArtifactError, match=f"no process reads {second.manifest.generation} any more"):
        OpenStage(tmp_path, "items", second.manifest.generation)


def test_a_file_that_changed_is_noticed_when_it_is_first_used(tmp_path: Path) -> None:
    name = close_with(tmp_path, "a")
    stage = OpenStage(tmp_path, "items")
    (tmp_path / name).write_bytes(b'"c"\n')
    with pytest.raises(ArtifactError, match=f"{name} is damaged"):
        stage.find("a.json")
    assert stage.find("b.json") is None


def test_a_folder_that_cannot_be_written_is_read_without_a_lease(tmp_path: Path) -> None:
    name = close_with(tmp_path, "a")
    (tmp_path / LEASES).write_text("no folder", encoding="utf-8")  # as root, a read-only mode would stop nothing
    stage = OpenStage(tmp_path, "items")
    assert stage.find("a.json") == tmp_path / name
