"""Random access to knowledge items."""

import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tiny import item_row, rename_to_old_columns, shard_paths, write_items

from comem_ray.artifacts import ROW_GROUP_ROWS, ArtifactError, StageFolder, write_parquet
from comem_ray.knowledge.items import ItemStore, UnknownItem
from comem_ray.knowledge.schema import ITEM_SCHEMA


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
    assert "picture" in pq.read_schema(shard_paths(tmp_path)[0]).names
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


def test_a_store_that_is_open_reads_its_own_items_while_the_stage_runs_again(tmp_path):
    """Two recovered images move all items behind them: the open store must not read another item's row."""
    ids = write_items(tmp_path, [40, 40])
    store = ItemStore(tmp_path)
    before = store.get(ids[:1])
    moved = [item_row(i) for i in (100, 101, *range(80))]
    stage = StageFolder(tmp_path, "ingest", {"tiny": True})
    for number, rows in enumerate((moved[:42], moved[42:])):
        name = f"part-0000-{number:06d}.parquet"
        write_parquet(tmp_path / name, pa.Table.from_pylist(rows, ITEM_SCHEMA))
        stage.commit(name.removesuffix(".parquet"), "again", {name: len(rows)}, {"items": len(rows)})
    stage.close(["part-0000-000000", "part-0000-000001"])
    assert store.get(ids[:1]) == before
    assert [item.text for item in store.get(ids)] == [item_row(i)["text"] for i in range(80)]
    assert len(ItemStore(tmp_path)) == 82


def test_an_item_of_another_id_is_never_given(tmp_path):
    """Files of version 0.2 have no digest in their names, and were changed in place."""
    ids = write_items(tmp_path, [40])
    store = ItemStore(tmp_path)
    store.get(ids[:1])  # the file is open, its digest was right
    (path,) = shard_paths(tmp_path)
    table = pq.read_table(path)
    for shard in store._open.values():
        shard.close()
    store._open.clear()
    write_parquet(path, table.take(list(reversed(range(40)))))
    with pytest.raises(ArtifactError, match=f"where {ids[3]} was: files changed while they were open"):
        store.get([ids[3]])


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_shard_that_changed_after_its_commit_is_named(tmp_path, how):
    ids = write_items(tmp_path, [40, 3])
    path = shard_paths(tmp_path)[0]
    data = bytearray(path.read_bytes())
    path.unlink()
    if how == "flipped":
        data[1_000] ^= 1
    if how != "gone":
        path.write_bytes(data[: len(data) - 40 * (how == "cut")])
    with pytest.raises(ArtifactError, match="Run the stage 'ingest' again: it makes this file again") as refused:
        ItemStore(tmp_path).get(ids[:1])
    assert path.name in str(refused.value)


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
