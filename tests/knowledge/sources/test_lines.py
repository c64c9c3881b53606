import gzip
import io
import os
import zlib

import pytest

from comem_ray.knowledge.sources import lines as lines_module
from comem_ray.knowledge.sources.lines import read_lines

TEXT = b"".join(b"line %d %s\n" % (n, os.urandom(30).hex().encode()) for n in range(3_000))


def read(tmp_path, data: bytes):
    path = tmp_path / "file"
    path.write_bytes(data)
    lines = list(read_lines(path))
    assert all(fault is None for _, fault in lines[:-1])
    return [line for line, _ in lines], lines[-1][1] if lines else None


@pytest.mark.parametrize(
    ("data", "want"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"a\n\nb", [b"a", b"", b"b"]),
        (b"\xef\xbb\xbfa\nb", [b"a", b"b"]),
        (b"a\rb\n", [b"a\rb"]),
    ],
)
def test_lines(tmp_path, data, want):
    assert read(tmp_path, data) == (want, None)
    assert read(tmp_path, gzip.compress(data)) == (want, None)


def test_lines_across_pieces_plain_and_gzip(tmp_path):
    want = TEXT.split(b"\n")[:-1]
    assert read(tmp_path, TEXT) == (want, None)
    assert read(tmp_path, gzip.compress(TEXT)) == (want, None)


def test_gzip_members_one_behind_the_other_and_padding(tmp_path):
    data = gzip.compress(b"a\nb") + gzip.compress(b"c\n") + bytes(100)
    assert read(tmp_path, data) == ([b"a", b"bc"], None)


@pytest.mark.parametrize("cut", [15, 5_000, 60_000])
def test_truncated_gzip_keeps_all_that_can_be_read(tmp_path, cut):
    data = gzip.compress(TEXT)[:cut]
    whole = zlib.decompressobj(wbits=31).decompress(data).split(b"\n")
    lines, fault = read(tmp_path, data)
    assert lines == whole
    assert fault.reason == "gz_truncated"


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_corrupt_gzip_keeps_what_is_before_the_damage(tmp_path, share):
    data = bytearray(gzip.compress(TEXT))
    spot = int(len(data) * share)
    data[spot : spot + 50] = bytes(50)
    lines, fault = read(tmp_path, bytes(data))
    assert fault.reason == "gz_corrupt"
    want = TEXT.split(b"\n")
    good = sum(line == other for line, other in zip(lines, want, strict=False))
    assert good > 0.9 * share * len(want)


def test_a_wrong_checksum_is_one_fault_behind_all_lines(tmp_path):
    data = bytearray(gzip.compress(b"a\nb\n"))
    data[-8] ^= 255
    lines, fault = read(tmp_path, bytes(data))
    assert (lines, fault.reason) == ([b"a", b"b", b""], "gz_corrupt")


def test_garbage_behind_a_gzip_member(tmp_path):
    lines, fault = read(tmp_path, gzip.compress(b"a\nb\n") + b"garbage")
    assert (lines[:2], fault.reason) == ([b"a", b"b"], "gz_corrupt")


def test_an_over_long_line_is_skipped_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 100_000)
    path = tmp_path / "file"
    path.write_bytes(b"a\n" + b"x" * 5_000_000 + b"\nb\n" + b"y" * 100_000 + b"\n" + b"z" * 100_001)
    lines = list(read_lines(path))
    assert [len(line) for line, _ in lines] == [1, 4_096, 1, 100_000, 4_096]
    assert [fault and fault.reason for _, fault in lines] == [None, "row_too_long", None, None, "row_too_long"]
    assert "5,000,000" in lines[1][1].detail


def test_a_folder_in_place_of_a_file_is_a_fault(tmp_path):
    ((_, fault),) = read_lines(tmp_path)
    assert (fault.reason, fault.retryable) == ("source_unreadable", True)


def test_the_content_says_whether_it_is_gzip(tmp_path):
    path = tmp_path / "plain.gz"
    path.write_bytes(b"not gzip\n")
    assert list(read_lines(path)) == [(b"not gzip", None)]
    assert gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(b"x"))).read() == b"x"
