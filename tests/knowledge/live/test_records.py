"""Records of live items: they come back as they went in, and damage is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.live_items import live_item

from comem_ray.knowledge.live.records import (
    SealError,
    check_record,
    deletion_record,
    item_record,
    read_item,
    read_memory,
    read_vectors,
)


def test_a_record_gives_back_its_item():
    item = live_item(4)
    record = item_record(item)
    check_record(record)
    assert read_item(record) == item.content.item
    assert read_item(record, image=False) == replace(item.content.item, image=None)
    np.testing.assert_array_equal(read_memory(record), item.memory)
    vectors = read_vectors(record)
    assert vectors.keys() == {"image", "text"}
    for kind, vector in vectors.items():
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector, item.vectors[kind])


def test_an_item_without_a_text_vector():
    item = live_item(4)
    record = item_record(replace(item, vectors={"image": item.vectors["image"]}))
    check_record(record)
    assert read_vectors(record).keys() == {"image"}


@pytest.mark.parametrize("column", ["image", "memory", "content", "image_vector", "text_vector"])
def test_every_flipped_byte_is_found(column):
    record = item_record(live_item(4))
    for position in range(0, len(record[column]), 7):
        data = bytearray(record[column])
        data[position] ^= 1
        with pytest.raises(SealError, match=f"the {column.replace('_', ' ')} of item {record['item_id']} is not what"):
            check_record({**record, column: bytes(data)})
    for wrong in (None, b"", record[column][:-1], "text", item_record(live_item(5))[column]):
        if column != "text_vector" or wrong is not None:
            with pytest.raises(SealError):
                check_record({**record, column: wrong})


@pytest.mark.parametrize("changes", [{"deleted": 1}, {"item_id": "0" * 24}, {"language": "fr"}, {"queries": 0}])
def test_columns_that_belong_to_another_change_are_found(changes):
    with pytest.raises(SealError):
        check_record(item_record(live_item(4)) | changes)


def test_a_deletion_is_no_item():
    record = deletion_record("a" * 24)
    check_record(record)
    with pytest.raises(SealError):
        check_record(record | {"deleted": 0})
    with pytest.raises(ValueError, match="24 hex digits"):
        deletion_record("a" * 23)


@pytest.mark.parametrize("memory", [np.zeros((8, 16), np.float32), np.zeros(8, np.int16), np.zeros((0, 4), np.int16)])
def test_memory_of_another_shape_is_refused(memory):
    with pytest.raises(ValueError, match=r"want memory \(Q, D\) int16"):
        item_record(replace(live_item(4), memory=memory))


@pytest.mark.parametrize(
    "vector", [np.zeros(4, np.float32), np.full(4, np.nan, np.float32), np.ones((2, 4), np.float32)]
)
def test_vectors_that_are_none_are_refused(vector):
    with pytest.raises(ValueError, match="finite numbers that are not all 0"):
        item_record(replace(live_item(4), vectors={"image": vector}))
