import json
from dataclasses import replace

import numpy as np

from comem_ray.knowledge.sources.files import SourceFile
from comem_ray.knowledge.sources.scan import contained, repeated, saved_scan, scan, units


def source(tmp_path, titles: list[str], number: int = 0) -> SourceFile:
    path = tmp_path / f"items{number}.jsonl"
    path.write_text("".join(json.dumps({"image": "a.png", "title": t}) + "\n" for t in titles))
    return SourceFile(f"items{number}", str(path), "jsonl", str(tmp_path))


def test_repeated_against_a_plain_loop():
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 2, (size, 12)).astype(np.uint8) for size in (700, 0, 1_300)]
    for part in parts:
        part[:, 2:-1] = 0  # few different values, some of them all zeros
    earlier: set[bytes] = set()
    want = []
    for part in parts:
        keys = [row.tobytes() for row in part]
        flags = []
        for key in keys:
            flags.append(any(key) and key in earlier)
            earlier.add(key)
        want.append(flags)
    got = repeated(parts)
    assert [mask.tolist() for mask in got] == want
    assert sum(map(sum, want)) > 1_500


def test_all_twelve_bytes_count():
    one = np.ones((1, 12), np.uint8)
    for byte in range(12):
        other = one.copy()
        other[0, byte] = 2
        assert [mask.any() for mask in repeated([one, other])] == [False, False]
    assert [mask.any() for mask in repeated([one, one])] == [False, True]


def test_units_drop_the_later_of_equal_rows_across_files(tmp_path):
    files = [source(tmp_path, ["a", "b", "", "a", "c"]), source(tmp_path, ["c", "d", ""], 1)]
    scans = [scan(file, 2, tmp_path / "scan") for file in files]
    first, second = units(files, scans)
    assert [u.name for u in first] == ["items0-000000", "items0-000001", "items0-000002"]
    assert [u.first_row for u in first] == [0, 2, 4]
    assert [u.repeats.tolist() for u in first] == [[], [1], []]
    assert [u.repeats.tolist() for u in second] == [[0], []]


def test_inputs_change_with_the_rows_and_with_what_is_repeated(tmp_path):
    def inputs(titles: list[str]) -> list[str]:
        file = source(tmp_path, titles)
        return [u.inputs for u in units([file], [scan(file, 2, tmp_path / "scan")])[0]]

    before = inputs(["a", "b", "c", "d"])
    assert inputs(["a", "b", "c", "d"]) == before
    after = inputs(["c", "b", "c", "d"])
    assert after[0] != before[0]
    assert after[1] != before[1]  # the same rows, one of them now a repetition


def test_contained_against_a_plain_loop():
    rng = np.random.default_rng(0)
    rows, chosen = (rng.integers(0, 3, (n, 12)).astype(np.uint8) for n in (2_000, 40))
    rows[:, 1:11] = chosen[:, 1:11] = 0
    rows[:5, 8:11] = 1  # alike in the first 8 bytes alone
    wanted = [any((row == c).all() for c in chosen) for row in rows]
    assert contained(rows, chosen).tolist() == wanted
    assert 0 < sum(wanted) < 2_000
    assert not contained(rows, chosen[:0]).any()
    assert contained(rows[:0], chosen).shape == (0,)


def test_deleted_rows_are_left_out_everywhere_but_in_the_live_source(tmp_path):
    files = [source(tmp_path, ["a", "b", "c", "d"]), source(tmp_path, ["b", "e", "f"], 1)]
    live = replace(source(tmp_path, ["b", "c"], 2), live=True)
    scans = [scan(file, 2, tmp_path / "scan") for file in (*files, live)]
    before = units(files, scans[:2])
    first, second, third = units([*files, live], scans, scans[0].identities[1:2])  # b
    assert [u.deleted.tolist() for u in (*first, *second, *third)] == [[1], [], [0], [], []]
    assert [u.repeats.tolist() for u in (*first, *second, *third)] == [[], [], [], [], [1]]
    assert third[0].name == "items2-000000"
    same = [u.inputs == old.inputs for u, old in zip((*first, *second), (*before[0], *before[1]), strict=True)]
    assert same == [False, True, False, True]


def test_a_scan_is_taken_again_while_the_file_is_unchanged(tmp_path):
    file, folder = source(tmp_path, ["a", "b", "c"]), tmp_path / "scan"
    assert saved_scan(file, 2, folder) is None
    first = scan(file, 2, folder)
    again = saved_scan(file, 2, folder)
    assert again.chunks == first.chunks
    assert np.array_equal(again.identities, first.identities)
    assert saved_scan(file, 1, folder) is None
    source(tmp_path, ["a", "b"])
    assert saved_scan(file, 2, folder) is None


def test_a_damaged_scan_is_not_taken(tmp_path):
    file, folder = source(tmp_path, ["a", "b", "c"]), tmp_path / "scan"
    scan(file, 2, folder)
    (saved,) = folder.iterdir()
    saved.write_bytes(saved.read_bytes()[:100])
    assert saved_scan(file, 2, folder) is None


def test_a_read_error_is_not_remembered(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    file = SourceFile("items", str(folder), "jsonl", str(tmp_path))
    assert not scan(file, 2, tmp_path / "scan").identities.any()
    assert saved_scan(file, 2, tmp_path / "scan") is None
