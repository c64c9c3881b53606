"""Random access to knowledge items."""

import time

import pyarrow.parquet as pq
import pytest
from support.tiny import item_row, rename_to_old_columns, write_items

from comem_ray.artifacts import ROW_GROUP_ROWS, ArtifactError
from comem_ray.knowledge.items import ItemStore, UnknownItem


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "items"
    write_items(folder, [2 * ROW_GROUP_ROWS + 5, 0, 3, ROW_GROUP_ROWS])
    return folder


def test_every_item_is_read_as_it_was_written(folder):
    store = ItemStore(folder)
    rows = [item_row(i) for i in range(len(store))]
    assert store.ids == [row["item_id"] for row in rows]
    for row, item in zip(rows, store.get(store.ids), strict=True):
        assert vars(item) == {name: row[name] for name in vars(item)}


def test_items_come_in_the_given_order(folder):
    store = ItemStore(folder)
    ids = [store.ids[i] for i in (70, 3, 71, 3, 0, 100, 64, 35)]
    assert [item.item_id for item in store.get(ids)] == ids
    assert store.get([]) == []


def test_without_its_image_an_item_is_complete_otherwise(folder):
    store = ItemStore(folder)
    [item] = store.get(store.ids[40:41], image=False)
    assert item.image is None
    assert (item.title, item.width) == ("Title 40", item_row(40)["width"])


def test_shards_of_version_0_1_are_read(tmp_path):
    ids = write_items(tmp_path, [3])
    items = ItemStore(tmp_path).get(ids)
    rename_to_old_columns(tmp_path)
    assert "picture" in pq.read_schema(next(tmp_path.glob("*.parquet"))).names
    assert ItemStore(tmp_path).get(ids) == items
    assert ItemStore(tmp_path).get(ids, image=False)[0].image is None


@pytest.mark.parametrize("unknown", ["0" * 24, "f" * 24, "", "x", "ab" * 40, "é"])
def test_an_unknown_item_is_named(folder, unknown):
    store = ItemStore(folder)
    assert unknown not in store
    assert store.ids[7] in store
    with pytest.raises(UnknownItem, match="no knowledge item has the id") as error:
        store.get([store.ids[0], unknown])
    assert repr(unknown) in str(error.value)
    assert isinstance(error.value, ValueError)


def test_open_files_are_bounded(folder, monkeypatch):
    monkeypatch.setattr("comem_ray.knowledge.items.OPEN_FILES", 1)
    store = ItemStore(folder)
    for item_id in (store.ids[0], store.ids[-1], store.ids[0]):
        assert store.get([item_id])[0].item_id == item_id
    assert len(store._open) == 1


def test_row_groups_of_the_shards_are_those_the_store_counts_on(folder):
    for path in folder.glob("*.parquet"):
        groups = pq.ParquetFile(path).metadata
        assert all(groups.row_group(i).num_rows == ROW_GROUP_ROWS for i in range(groups.num_row_groups - 1))


def test_ten_texts_take_milliseconds(folder):
    store = ItemStore(folder)
    ids = store.ids[::10][:10]
    store.get(ids, image=False)
    best = min(_seconds(lambda: store.get(ids, image=False)) for _ in range(10))
    assert best < 0.05


def test_an_unfinished_stage_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="manifest"):
        ItemStore(tmp_path)


def test_a_store_without_items_is_empty(tmp_path):
    write_items(tmp_path / "items", [0])
    store = ItemStore(tmp_path / "items")
    assert len(store) == 0
    assert "a" not in store


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
