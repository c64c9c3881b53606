import gzip

import pytest
from support.sources import samples, write_tar
from support.tiny import png

from comem_ray.knowledge.sources import tars
from comem_ray.knowledge.sources.rows import RowFault
from comem_ray.knowledge.sources.tars import TarImages, read_members


def members(path) -> tuple[dict[str, bytes | RowFault], list[str]]:
    """Data by name, and the reasons of faults."""
    read = list(read_members(path))
    return {m.name: m.data for m in read if not isinstance(m, RowFault)}, [
        m.reason for m in read if isinstance(m, RowFault)
    ]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_members_come_whole_and_in_order(tmp_path, mode):
    files = samples(3)
    hidden = {"._a.jpg": b"x", "__index__.json": b"{}"}
    read, faults = members(write_tar(tmp_path / "a.tar", {**files, **hidden}, mode))
    assert list(read.items()) == list(files.items())
    assert faults == []


@pytest.mark.parametrize("cut", [512 + 20, 3 * 512 + 100, 4 * 512, 5 * 512])
def test_a_cut_tar_gives_what_comes_before(tmp_path, cut):
    path = write_tar(tmp_path / "a.tar", {f"{n}.txt": bytes([65 + n]) * 512 for n in range(4)})
    path.write_bytes(path.read_bytes()[:cut])
    read, faults = members(path)
    assert list(read) == [f"{n}.txt" for n in range(cut // 1024)]
    assert faults == ["tar_truncated"]


def test_a_damaged_header_costs_the_rest(tmp_path):
    path = write_tar(tmp_path / "a.tar", {f"{n}.txt": bytes([65 + n]) * 512 for n in range(4)})
    data = bytearray(path.read_bytes())
    data[2048:2148] = b"\xff" * 100
    path.write_bytes(bytes(data))
    read, faults = members(path)
    assert (list(read), faults) == (["0.txt", "1.txt"], ["tar_corrupt"])


def test_damaged_gzip(tmp_path):
    path = write_tar(tmp_path / "a.tar.gz", {"a.txt": bytes(range(256)) * 900}, "w:gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert members(path)[1] == ["tar_truncated"]
    path.write_bytes(gzip.compress(b"not a tar"))
    assert members(path)[1] == ["tar_corrupt"]


@pytest.mark.parametrize(("data", "reason"), [(b"", "source_empty"), (b"x" * 3000, "tar_corrupt")])
def test_what_is_not_a_tar_is_one_fault(tmp_path, data, reason):
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    assert members(path) == ({}, [reason])


def test_a_missing_tar_may_be_there_later(tmp_path):
    (fault,) = read_members(tmp_path / "none.tar")
    assert isinstance(fault, RowFault)
    assert (fault.reason, fault.retryable) == ("source_unreadable", True)


def test_a_huge_member_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "MAX_FILE_BYTES", 10)
    read, faults = members(write_tar(tmp_path / "a.tar", {"a.jpg": bytes(11), "b.txt": b"b"}))
    assert isinstance(read["a.jpg"], RowFault)
    assert (read["b.txt"], faults) == (b"b", [])


def test_images_are_read_at_random_by_key(tmp_path):
    images = TarImages(write_tar(tmp_path / "00000.tar", samples(3)))
    assert images.fault is None
    assert [images.read(f"{n:09d}") for n in (2, 0)] == [png(2, 4, 4), png(0, 4, 4)]
    missing = images.read("000000009")
    assert isinstance(missing, RowFault)
    assert missing.reason == "image_missing"


def test_of_a_cut_tar_the_images_before_the_break_can_be_read(tmp_path):
    path = write_tar(tmp_path / "00000.tar", samples(3))
    path.write_bytes(path.read_bytes()[: 3 * 1024 + 512 + 10])
    images = TarImages(path)
    assert images.fault is not None
    assert images.fault.reason == "tar_truncated"
    assert images.read("000000000") == png(0, 4, 4)
    assert isinstance(images.read("000000002"), RowFault)
    assert isinstance(images.read("000000001"), RowFault)
