"""One driver per stage: the second is refused by name, and a dead one holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from comem_ray.artifacts import StorageError
from comem_ray.artifacts.lock import LockedError, stage_lock

HOLDER = """
import sys, time
from pathlib import Path
from comem_ray.artifacts.lock import stage_lock
with stage_lock(Path(sys.argv[1]), "ingest in /data"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_is_refused_by_name_until_the_first_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "ingest"
    first = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    try:
        assert first.stdout.readline() == "held\n"
        holder = f"another run of ingest in /data is at work: process {first.pid} on "
        with pytest.raises(LockedError, match=holder), stage_lock(path, "ingest in /data"):
            pass
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    with stage_lock(path, "ingest in /data"):
        assert str(os.getpid()) in path.read_text(encoding="utf-8")
    assert path.read_text(encoding="utf-8") == ""


def test_other_stages_may_run_beside_it(tmp_path: Path) -> None:
    with stage_lock(tmp_path / "ingest", "ingest"), stage_lock(tmp_path / "train", "train"):
        pass


def test_a_root_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("x", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot write"), stage_lock(tmp_path / "root" / "locks" / "x", "x"):
        pass
