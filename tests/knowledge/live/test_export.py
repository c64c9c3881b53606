"""The live source: it holds what the journal holds and what earlier exports held, wherever an export was killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import pytest
from support.live_items import LIMITS, live_item

from comem_ray.artifacts import ArtifactError
from comem_ray.knowledge.images import normalize_image
from comem_ray.knowledge.items import Item
from comem_ray.knowledge.live.export import LiveSource, export, read_current
from comem_ray.knowledge.live.journal import Journal
from comem_ray.knowledge.sources import jsonl
from comem_ray.knowledge.sources.rows import Row

BASE = [f"{i:024x}" for i in range(40)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "live"


@pytest.fixture
def journal(folder):
    journal = Journal(folder)
    yield journal
    journal.close()


def new_id(i: int) -> str:
    return live_item(i).content.item.item_id


def exported(folder: Path) -> tuple[list[Item], list[str]]:
    """The items that an ingest makes of the live source, and the ids that it leaves out of the others."""
    source = read_current(folder)
    assert source is not None
    lines = (folder / source.items).read_bytes().splitlines()
    items = []
    for line in lines:
        [(_, row)] = jsonl.parse(next(jsonl.batches(iter([(line, None)]), 10, {})))
        assert isinstance(row, Row)
        data = (folder / row.image).read_bytes()
        assert Path(row.image).stem == hashlib.sha256(data).hexdigest()
        image = normalize_image(data, LIMITS)
        item_id = json.loads(line)["item_id"]
        fields = {name: getattr(row, name) for name in ("language", "title", "text", "page_url", "image_url")}
        items.append(Item(item_id, image=image.data, width=image.width, height=image.height, **fields))
    return items, (folder / source.deleted).read_text().split()


def assert_nothing_else(folder: Path) -> None:
    """Only the files of the current export are there, and the journal's own."""
    source = read_current(folder)
    names = {path.name for path in folder.iterdir()}
    assert names - {"journal.sqlite", "journal.sqlite-wal", "journal.lock"} <= {
        "current.json", "images", source.items, source.deleted,
    }  # fmt: skip
    images = {f"images/{path.name}" for path in (folder / "images").glob("*")}
    assert images == {json.loads(line)["image"] for line in (folder / source.items).read_bytes().splitlines()}


def test_nothing_is_an_export_too(journal, folder):
    assert read_current(folder) is None
    assert export(journal, folder) == 0
    assert exported(folder) == ([], [])


def test_an_export_has_the_items_in_the_order_of_first_addition(journal, folder):
    journal.write([live_item(i) for i in range(4)], BASE[:2])
    journal.write([live_item(8, new_id(1)), live_item(9, BASE[5])], [new_id(2)])
    assert export(journal, folder) == 9
    assert json.loads((folder / "current.json").read_text()) == {
        "seq": 9,
        "items": "items-9.jsonl",
        "deleted": "deleted-9.txt",
    }
    items, deleted = exported(folder)
    wanted = [live_item(0), live_item(8, new_id(1)), live_item(3), live_item(9, BASE[5])]
    assert items == [live.content.item for live in wanted]
    assert {*BASE[:2], BASE[5]} <= set(deleted)
    assert deleted == sorted(set(deleted))
    assert_nothing_else(folder)


@pytest.mark.parametrize("pruned", [False, True])
def test_an_export_goes_on_from_the_one_before(journal, folder, pruned):
    journal.write([live_item(i) for i in range(4)], BASE[:2])
    seq = export(journal, folder)
    if pruned:
        journal.prune(seq)
    journal.write([live_item(8, new_id(1)), live_item(5)], [new_id(2), BASE[3]])
    assert export(journal, folder) == seq + 4
    items, deleted = exported(folder)
    wanted = [live_item(0), live_item(8, new_id(1)), live_item(3), live_item(5)]
    assert items == [live.content.item for live in wanted]
    assert {*BASE[:2], BASE[3]} <= set(deleted)
    assert_nothing_else(folder)


def test_an_item_that_was_added_exported_and_deleted_leaves_its_id_alone(journal, folder):
    journal.write([live_item(0), live_item(1)], [])
    journal.prune(export(journal, folder))
    journal.write([], [new_id(0)])
    export(journal, folder)
    items, deleted = exported(folder)
    assert [item.item_id for item in items] == [new_id(1)]
    assert new_id(0) in deleted
    assert len(list((folder / "images").iterdir())) == 1


def test_an_item_of_the_base_that_is_replaced_is_there_once_with_its_new_content(journal, folder):
    journal.write([live_item(0, BASE[7])], [])
    journal.prune(export(journal, folder))
    journal.write([live_item(1, BASE[7])], [])
    export(journal, folder)
    assert exported(folder) == ([live_item(1, BASE[7]).content.item], [BASE[7]])


@pytest.mark.parametrize("between", [False, True])
def test_an_item_that_is_added_again_is_there_again(journal, folder, between):
    journal.write([live_item(0), live_item(1)], [])
    journal.prune(export(journal, folder))
    journal.write([], [new_id(0)])
    if between:
        journal.prune(export(journal, folder))
    journal.write([live_item(0)], [])
    export(journal, folder)
    assert {item.item_id: item for item in exported(folder)[0]} == {
        new_id(i): live_item(i).content.item for i in range(2)
    }


def test_two_items_share_an_image_until_both_are_gone(journal, folder):
    same = live_item(0).content.item
    twin = live_item(0, title="Another title")
    journal.write([live_item(0), twin], [])
    export(journal, folder)
    assert len(list((folder / "images").iterdir())) == 1
    journal.write([], [same.item_id])
    export(journal, folder)
    assert exported(folder)[0] == [twin.content.item]
    journal.write([], [twin.content.item.item_id])
    export(journal, folder)
    assert list((folder / "images").iterdir()) == []


def test_a_second_export_changes_no_byte(journal, folder):
    journal.write([live_item(i) for i in range(70)], BASE)
    export(journal, folder)
    before = files(folder)
    export(journal, folder)
    assert files(folder) == before


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "journal" not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_random_changes_exports_and_prunes(journal, folder):
    rng, expected, out = random.Random(0), dict[str, Item](), set[str]()
    for step in range(120):
        live = sorted(expected)
        numbers = rng.sample(range(60), rng.randrange(3))
        puts = [live_item(i) for i in numbers]
        puts += [live_item(rng.randrange(60, 99), i) for i in rng.sample([*live, *BASE], rng.randrange(2))]
        deletes = rng.sample([*live, *BASE], rng.randrange(3))
        journal.write(puts, deletes)
        for put in puts:
            expected[put.content.item.item_id] = put.content.item
        for item_id in deletes:
            expected.pop(item_id, None)
        out |= {*deletes, *(put.content.item.item_id for put in puts)}
        if step % 7 == 6:
            seq = export(journal, folder)
            items, deleted = exported(folder)
            assert len(items) == len({item.item_id for item in items})
            assert {item.item_id: item for item in items} == expected
            assert out & set(BASE) <= set(deleted)
            assert_nothing_else(folder)
            if rng.random() < 0.5:
                journal.prune(seq)


class Killed(BaseException):
    pass


def test_an_export_that_is_killed_anywhere_does_no_harm(journal, folder, tmp_path, monkeypatch):
    """Killed before each of its renames and removals: what ingest reads stays whole, and the next export is as ever."""
    journal.write([live_item(i) for i in range(4)], BASE[:2])
    journal.prune(export(journal, folder))
    before = exported(folder)
    journal.write([live_item(8, new_id(1)), live_item(5)], [new_id(2)])
    start, wanted = tmp_path / "start", None
    copy_source(folder, start)
    for name in (".items-6.jsonl.0f.tmp", ".current.json.0f.tmp", f"images/.{'0' * 64}.png.0f.tmp", "items-1.jsonl"):
        (start / name).write_text("of an export that was killed before")
    for step in range(40):
        out = tmp_path / f"killed-{step}"
        copy_source(start, out)
        with monkeypatch.context() as patch:
            kill_at(patch, step)
            try:
                export(journal, out)
                killed = False
            except Killed:
                killed = True
        state = exported(out)
        assert state == before or read_current(out).seq == journal.seq
        export(journal, out)
        assert_nothing_else(out)
        wanted = wanted or files(out)
        assert files(out) == wanted
        if not killed:
            assert step > 6
            return
    pytest.fail("an export never ended")


def copy_source(folder: Path, target: Path) -> None:
    shutil.copytree(folder, target, ignore=lambda _, names: [name for name in names if name.startswith("journal")])


def kill_at(patch: pytest.MonkeyPatch, step: int) -> None:
    calls = iter(range(1_000))

    def counted(original):
        def call(*args, **kwargs):
            if next(calls) == step:
                raise Killed
            return original(*args, **kwargs)

        return call

    patch.setattr(os, "replace", counted(os.replace))
    patch.setattr(Path, "unlink", counted(Path.unlink))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("current.json", "{"),
        ("current.json", '{"seq": 1}'),
        ("items-2.jsonl", '{"a": 1}'),
        ("items-2.jsonl", "{"),
        ("items-2.jsonl", None),
        ("deleted-2.txt", None),
    ],
)
def test_a_damaged_export_is_named_and_left(journal, folder, name, text):
    journal.write([live_item(0), live_item(1)], [])
    export(journal, folder)
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    before = files(folder)
    with pytest.raises(ArtifactError, match=f"{name} is damaged"):
        export(journal, folder)
    assert files(folder) == before


def test_what_current_json_says(folder):
    folder.mkdir()
    (folder / "current.json").write_text('{"seq": 3, "items": "items-3.jsonl", "deleted": "deleted-3.txt"}')
    assert read_current(folder) == LiveSource(3, "items-3.jsonl", "deleted-3.txt")
