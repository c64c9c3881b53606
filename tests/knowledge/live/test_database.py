"""The journal's file: where it cannot be opened, one sentence says why. Locks and damage: test_journal.py."""

from __future__ import annotations

import os
import sqlite3

import pytest

from comem_ray.artifacts import ArtifactError, StorageError
from comem_ray.knowledge.live.database import exported_seq, open_database


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write \S+file/live/journal.sqlite"):
        open_database(tmp_path / "file" / "live")


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "journal.sqlite").mkdir()
    with pytest.raises(StorageError, match=r"cannot write \S+journal.sqlite: unable to open database file"):
        open_database(tmp_path)


def test_a_creation_that_was_killed_is_taken_up(tmp_path):
    (tmp_path / "journal.sqlite").write_bytes(b"")
    open_database(tmp_path).close()
    database = sqlite3.connect(tmp_path / "journal.sqlite")
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
    database.close()


def test_the_folder_is_flushed_before_anything_is_acknowledged(tmp_path, monkeypatch):
    flushed = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (flushed.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    open_database(tmp_path / "live").close()
    assert {str(tmp_path / "live"), str(tmp_path)} <= set(flushed)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"seq": "5"}', '{"seq": -1}', '{"seq": null}'])
def test_a_damaged_current_json_is_named(tmp_path, text):
    (tmp_path / "current.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"current.json is damaged \(.*: put back a backup of this file"):
        exported_seq(tmp_path / "current.json")
    assert exported_seq(tmp_path / "none.json") == 0
