"""Files that are there whole or not at all, and what is said where the filesystem refuses."""

from __future__ import annotations

import errno
import os
import resource
import signal
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from comem_ray.artifacts import StorageError, write_atomic, write_json
from comem_ray.artifacts.files import move


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomic(path, lambda p: p.write_text("old", encoding="utf-8") and None)

    def fail(temporary: Path) -> None:
        temporary.write_text("half", encoding="utf-8")
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        write_atomic(path, fail)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["file"]
    assert path.read_text(encoding="utf-8") == "old"


@pytest.fixture
def small_files():
    """No file of this process may grow beyond 64 KiB: the system refuses as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, old)


def numpy_file(path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.zeros(100_000))


WRITERS = {
    "bytes": lambda path: path.write_bytes(bytes(100_000)),
    "numpy": numpy_file,
    "parquet": lambda path: pq.write_table(pa.table({"x": np.random.default_rng(0).random(100_000)}), path),
    "safetensors": lambda path: save_file({"x": torch.zeros(100_000)}, path),
    "faiss": lambda path: faiss.write_index(flat_index(), str(path)),
}


def flat_index() -> faiss.Index:
    index = faiss.IndexFlatIP(100)
    index.add(np.zeros((1_000, 100), np.float32))
    return index


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("library", WRITERS)
def test_whatever_library_writes_a_full_disk_is_one_sentence_with_path_and_free_bytes(
    tmp_path: Path, library: str
) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*file: .* \([\d,]+ bytes free of [\d,]+ in ") as refused:
        write_atomic(tmp_path / "file", WRITERS[library])
    assert "finished work is kept" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("x", encoding="utf-8")
    with pytest.raises(StorageError, match=r"cannot write .*root/items/a\.json: (Not a directory|File exists)"):
        write_json(tmp_path / "root" / "items" / "a.json", {})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_what_a_filesystem_refuses_is_said_in_its_words(tmp_path: Path, number: int) -> None:
    def refuse(temporary: Path) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(StorageError, match=os.strerror(number)):
        write_atomic(tmp_path / "file", refuse)


def test_a_file_moved_into_place_is_flushed_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a loss of power a name may be lost whose folder was not flushed: fsync of the file alone is not enough."""
    flushed: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (flushed.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd))[1])
    (tmp_path / "a").write_text("x", encoding="utf-8")
    move(tmp_path / "a", tmp_path / "b")
    assert flushed == [str(tmp_path)]
