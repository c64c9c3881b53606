"""The one type of a question: what it holds where a file gives no more."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from comem_ray.tasks.example import Example


def test_what_is_not_given_is_empty_and_not_shared():
    first, second = (Example(data_id, "?", None, "exact", ["x"]) for data_id in "ab")
    first.gold_items.append("item")
    first.groups["split"] = "val"
    assert (second.gold_items, second.groups, second.choices, second.entities) == ([], {}, [], [])
    assert second.image_names is None  # its row names no image, which is not to say that it has none
    with pytest.raises(FrozenInstanceError):
        second.question = "!"
