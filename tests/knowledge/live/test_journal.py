"""The journal: what a write leaves behind, whoever asks and however the process ended."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.live_items import CLIP, ENCODER, live_item

from comem_ray.artifacts import ArtifactError, StorageError, write_json
from comem_ray.artifacts.lock import LockedError
from comem_ray.knowledge.live import journal as journal_module
from comem_ray.knowledge.live.journal import KEY_SECONDS, Journal, KeyReused, Written

HOLDER = """
import sys, time
from pathlib import Path
from comem_ray.knowledge.live.journal import Journal
journal = Journal(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "live")
    yield journal
    journal.close()


def reopen(journal: Journal) -> Journal:
    journal.close()
    return Journal(journal.folder)


def ids(*numbers: int) -> list[str]:
    return [live_item(i).content.item.item_id for i in numbers]


def assert_holds(journal: Journal, item) -> None:
    content = item.content.item
    assert journal.contents([content.item_id]) == {content.item_id: content}
    np.testing.assert_array_equal(journal.memory([content.item_id], ENCODER)[content.item_id], item.memory)
    [vectors] = [v for v in journal.changes(0).added if v.item_id == content.item_id]
    assert (vectors.language, vectors.clip) == (content.language, CLIP)
    assert set(vectors.vectors) == set(item.vectors)
    for kind, vector in item.vectors.items():
        np.testing.assert_array_equal(vectors.vectors[kind], vector)


def test_what_was_written_is_read_back_also_after_a_restart(journal):
    items = [live_item(i) for i in range(3)]
    assert journal.write(items[:2], []) == Written(2)
    assert journal.write(items[2:], ["f" * 24]) == Written(4)
    for restarted in (False, True):
        opened = reopen(journal) if restarted else journal
        assert opened.seq == 4
        for item in items:
            assert_holds(opened, item)
        changes = opened.changes(0)
        assert (changes.seq, changes.removed) == (4, ["f" * 24])
        assert [v.item_id for v in changes.added] == ids(0, 1, 2)
        assert opened.contents(["f" * 24, "0" * 24]) == {"f" * 24: None}
        assert opened.counts(0) == (3, 1)
    opened.close()


def test_the_last_change_of_an_item_counts(journal):
    [item_id] = ids(0)
    journal.write([live_item(0), live_item(1)], [])
    journal.write([], [item_id])
    assert journal.contents([item_id]) == {item_id: None}
    assert (journal.changes(2).added, journal.changes(2).removed) == ([], [item_id])
    journal.write([live_item(7, item_id)], [])
    assert journal.contents([item_id])[item_id].title == "Live 7"
    assert ([v.item_id for v in journal.changes(0).added], journal.changes(0).removed) == ([*ids(1), item_id], [])
    assert (journal.counts(0), journal.counts(3), journal.seq) == ((2, 0), (1, 0), 4)


def test_what_was_replaced_leaves_the_disk(journal):
    [item_id] = ids(0)
    for i in range(200):
        journal.write([live_item(i, item_id)], [])
    assert journal.counts(0) == (1, 0)
    journal.close()
    assert journal.path.stat().st_size < 60_000


def test_nothing_is_read_where_nothing_changed(journal):
    journal.write([live_item(0)], [])
    changes = journal.changes(1)
    assert (changes.seq, changes.added, changes.removed) == (1, [], [])


def test_memory_of_another_encoder_is_left_out(journal):
    journal.write([live_item(0)], [])
    assert journal.memory(ids(0, 1), "another") == {}
    assert journal.memory(ids(0, 1), ENCODER).keys() == set(ids(0))


def test_many_ids_are_read_at_once(journal):
    journal.write([live_item(0), live_item(1)], [])
    unknown = [f"{i:024x}" for i in range(1_200)]
    assert journal.contents([*ids(0), *unknown, *ids(1)]).keys() == set(ids(0, 1))


def test_pages_go_from_the_newest_to_the_oldest(journal):
    journal.write([live_item(i) for i in range(7)], ["f" * 24])
    first = journal.page(None, 3, 0)
    second = journal.page(first[-1][0], 3, 0)
    third = journal.page(second[-1][0], 3, 0)
    assert [seq for seq, _ in first + second + third] == [7, 6, 5, 4, 3, 2, 1]
    assert [item.item_id for _, item in first] == ids(6, 5, 4)
    assert {item.image for _, item in first} == {None}
    assert [seq for seq, _ in journal.page(None, 10, 5)] == [7, 6]


@pytest.mark.parametrize("upto", [0, 2, 3, 9])
def test_pruned_changes_are_gone_and_their_numbers_never_come_back(journal, upto):
    journal.write([live_item(0), live_item(1)], ["f" * 24])
    journal.prune(upto)
    after = reopen(journal)
    kept = max(0, 3 - upto)
    assert sum(after.counts(0)) == kept
    assert after.seq == 3
    assert after.write([live_item(3)], []).seq == 4
    if upto:
        with pytest.raises(ArtifactError, match=r"run jobs\.ingest and the stages after it"):
            after.changes(0)
    assert len(after.changes(min(upto, 3)).added) + len(after.changes(min(upto, 3)).removed) == kept + 1
    after.close()


def test_pruning_gives_the_disk_back(journal):
    journal.write([live_item(i) for i in range(300)], [])
    opened = reopen(journal)
    size = opened.path.stat().st_size
    opened.prune(298)
    opened.close()
    assert opened.path.stat().st_size < size / 4
    opened = Journal(journal.folder)
    kept = [item.item_id for _, item in opened.page(None, 10, 0)]
    assert kept == ids(299, 298)
    opened.close()


def test_a_journal_made_anew_numbers_on_from_the_last_export(tmp_path):
    write_json(tmp_path / "live" / "current.json", {"seq": 500, "items": "", "deleted": ""})
    journal = Journal(tmp_path / "live")
    assert journal.seq == 500
    assert journal.write([live_item(0)], []).seq == 501
    assert [v.item_id for v in journal.changes(500).added] == ids(0)
    with pytest.raises(ArtifactError, match="up to 499"):
        journal.changes(499)
    journal.close()


def test_a_journal_put_back_from_a_backup_numbers_on_from_the_last_export(journal):
    journal.write([live_item(0)], [])
    write_json(journal.folder / "current.json", {"seq": 500, "items": "", "deleted": ""})
    after = reopen(journal)
    assert after.seq == 500
    assert after.write([live_item(1)], []).seq == 501
    assert [v.item_id for v in after.changes(500).added] == ids(1)
    after.close()


def test_entries_go_in_the_order_of_first_addition(journal):
    journal.write([live_item(i) for i in range(4)], ["f" * 24])
    journal.write([live_item(9, ids(1)[0])], ids(2))  # 1 is replaced and keeps its place
    journal.write([live_item(2)], [])  # 2 is added again
    assert journal.entries(0) == [*((i, False) for i in ids(0, 1, 3)), ("f" * 24, True), (ids(2)[0], False)]
    assert journal.entries(5) == [(i, False) for i in ids(1, 2)]


def test_a_key_does_its_work_once(journal):
    first = journal.write([live_item(0)], [], "key", "digest", reply="added")
    assert first == Written(1, "added")
    assert journal.write([live_item(0)], [], "key", "digest") == Written(1, "added", repeated=True)
    after = reopen(journal)
    assert after.write([live_item(0)], [], "key", "digest") == Written(1, "added", repeated=True)
    assert after.repeated("key", "digest") == Written(1, "added", repeated=True)
    assert after.repeated("another", "digest") is None
    for again in (lambda: after.write([live_item(1)], [], "key", "other"), lambda: after.repeated("key", "other")):
        with pytest.raises(KeyReused, match="'key' came with another request before"):
            again()
    assert (after.seq, after.counts(0)) == (1, (1, 0))
    after.close()


def test_a_key_is_forgotten_after_a_day(journal, monkeypatch):
    journal.write([live_item(0)], [], "key", "digest")
    now = journal_module.time.time() + KEY_SECONDS + 1
    monkeypatch.setattr(journal_module.time, "time", lambda: now)
    assert journal.repeated("key", "digest") is None
    assert journal.write([live_item(1)], [], "key", "another digest") == Written(2)


def test_a_write_is_all_or_nothing(journal):
    spoiled = live_item(1)
    spoiled.vectors["image"][:] = 0
    with pytest.raises(ValueError, match="finite numbers that are not all 0"):
        journal.write([live_item(0), spoiled], [])
    with pytest.raises(ValueError, match="24 hex digits"):
        journal.write([live_item(0)], ["no id"])
    assert (journal.seq, journal.counts(0)) == (0, (0, 0))


def test_threads_share_a_journal(journal):
    def work(thread: int) -> int:
        mine = range(100 * thread, 100 * thread + 10)
        seqs = [journal.write([live_item(i)], [], f"key {i}", "digest").seq for i in mine]
        assert journal.contents(ids(*mine)).keys() == set(ids(*mine))
        assert seqs == sorted(seqs)
        return len(journal.changes(0).added)

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(8))) == 80
    assert (journal.seq, journal.counts(0)) == (80, (80, 0))
    assert sorted(seq for seq, _ in journal.page(None, 100, 0)) == list(range(1, 81))


def test_one_key_of_many_threads_does_its_work_once(journal):
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda _: journal.write([live_item(0)], [], "key", "digest"), range(16)))
    assert [w.seq for w in written] == [1] * 16
    assert sum(w.repeated for w in written) == 15


def test_a_second_process_is_refused_by_name_until_the_first_is_dead(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    first = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=rf"journal.sqlite open: process {first.pid} on .*, since .*stop it"):
            Journal(folder)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    journal = Journal(folder)
    with pytest.raises(LockedError, match=f"process {os.getpid()} on"):  # a second in the same process too
        Journal(folder)
    journal.write([live_item(0)], [])
    journal.close()
    journal.close()
    Journal(folder).close()


def test_commits_are_flushed_to_disk(journal):
    wanted = {"synchronous": 2, "journal_mode": "wal", "locking_mode": "exclusive"}
    for pragma, value in wanted.items():
        assert journal._connection.execute(f"PRAGMA {pragma}").fetchone() == {pragma: value}


def test_a_full_disk_refuses_the_write_and_keeps_the_rest(journal):
    journal.write([live_item(0)], [])
    pages = journal._connection.execute("PRAGMA page_count").fetchone()["page_count"]
    journal._connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageError, match=r"cannot write \S+journal.sqlite: database or disk is full"):
        journal.write([live_item(i) for i in range(1, 40)], [])
    assert (journal.seq, journal.counts(0)) == (1, (1, 0))
    journal._connection.execute("PRAGMA max_page_count=1000000")
    assert journal.write([live_item(i) for i in range(1, 40)], []).seq == 40


def damage_at(path: Path, needle: bytes) -> None:
    data = bytearray(path.read_bytes())
    position = data.rindex(needle) + len(needle) // 2
    data[position] ^= 0x7F
    path.write_bytes(data)


def test_a_damaged_journal_is_named(tmp_path):
    items = [live_item(i) for i in range(6)]
    item = items[3]
    blobs = {
        "image": item.content.item.image[-40:],
        "memory": item.memory.tobytes()[:40],
        "image vector": item.vectors["image"].astype("<f2").tobytes(),
        "text vector": item.vectors["text"].astype("<f2").tobytes(),
        "content": b"description number 3",
    }
    for what, needle in blobs.items():
        folder = tmp_path / what / "live"
        journal = Journal(folder)
        journal.write(items, [])
        journal.close()
        damage_at(journal.path, needle)
        with pytest.raises(ArtifactError, match=rf"journal.sqlite is damaged \(the {what} of item {ids(3)[0]}"):
            Journal(folder)
        with pytest.raises(ArtifactError, match="Put back a backup"):  # and nothing keeps it locked
            Journal(folder)


@pytest.mark.parametrize("spoil", ["no database", "cut", "zeros"])
def test_a_file_that_is_no_journal_is_named(journal, spoil):
    journal.write([live_item(i) for i in range(20)], [])
    journal.close()
    data = journal.path.read_bytes()
    files = {
        "no database": b"x" * 5_000,
        "cut": data[: len(data) // 2],
        "zeros": data[:9_000] + bytes(8_000) + data[17_000:],
    }
    journal.path.write_bytes(files[spoil])
    with pytest.raises(ArtifactError, match=r"journal.sqlite is damaged \(.*\). Put back a backup"):
        Journal(journal.folder)


def test_two_rows_that_were_swapped_are_found(journal):
    journal.write([live_item(0), live_item(1)], [])
    journal.close()
    database = sqlite3.connect(journal.path)
    first, second = (row[0] for row in database.execute("SELECT memory FROM changes ORDER BY seq"))
    database.executemany("UPDATE changes SET memory = ? WHERE seq = ?", [(second, 1), (first, 2)])
    database.commit()
    database.close()
    with pytest.raises(ArtifactError, match=f"the memory of item {ids(0)[0]} is not what was written"):
        Journal(journal.folder)


def test_a_journal_of_a_later_version_is_refused(journal):
    journal.close()
    database = sqlite3.connect(journal.path)
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(ArtifactError, match="a later version of this package"):
        Journal(journal.folder)


def test_the_number_of_an_items_last_change(journal: Journal) -> None:
    journal.write([live_item(0), live_item(1)], [])
    journal.write([], ids(1))
    assert journal.numbers(ids(0, 1, 2)) == dict(zip(ids(0, 1), (1, 3), strict=True))
