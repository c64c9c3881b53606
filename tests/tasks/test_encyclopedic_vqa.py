"""Encyclopedic-VQA on fixtures in its own format; its rule: rules/test_encyclopedic_vqa.py."""

from __future__ import annotations

import csv

import pytest
from support.published import ENCYCLOPEDIC_VQA_HEADER
from support.scored import card, document, scores

from comem_ray.tasks.encyclopedic_vqa import TASK
from comem_ray.tasks.files import RejectedRow
from comem_ray.tasks.task import TaskFiles

ROWS = [
    ["What eats it?", "multi_answer", "hawk&&fox|hawk", "6|7", "inaturalist", "val"],
    ["How old?", "templated", "5|five", "ab12", "landmarks", "train"],
]


def write(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([ENCYCLOPEDIC_VQA_HEADER, *rows])
    return path


def test_examples(tmp_path):
    names = document(tmp_path / "inat.json", {"images": [{"id": 7, "file_name": "train/00001_Bird/a.jpg"}, 5]})
    path = write(tmp_path / "a.csv", ROWS)
    first, second = TASK.read(TaskFiles([path], [names]))
    assert first.gold == "hawk&&fox|hawk&&"
    assert first.groups == {"split": "val", "type": "multi_answer"}
    assert first.image_names == ["train/00001_Bird/a.jpg", "6", "inaturalist/6", "6/6", "7", "inaturalist/7", "7/7"]
    assert (second.question, second.gold) == ("How old?", "5|five")
    assert second.image_names == ["ab12", "landmarks/ab12", "a/b/1/ab12"]
    assert [example.data_id for example in TASK.read(TaskFiles([path]))] == [first.data_id, second.data_id]
    assert len({first.data_id, second.data_id}) == 2


def test_scores(tmp_path):
    path = write(tmp_path / "a.csv", ROWS)
    first, second = (example.data_id for example in TASK.read(TaskFiles([path])))
    result = card("encyclopedic_vqa", path, {first: "fox and hawk", second: r"\boxed{six}"})
    assert scores(result) == [1.0, 0.0]
    assert result.summary["per_split"]["val"]["score"] == 100.0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["How old?", "templated", "|", "ab12", "landmarks", "train"], "bad_gold"),
        (["How old?"], "bad_csv"),
    ],
)
def test_rows_that_are_rejected(tmp_path, row, reason):
    (rejected,) = TASK.read(TaskFiles([write(tmp_path / "a.csv", [row])]))
    assert isinstance(rejected, RejectedRow)
    assert rejected.reason == reason


def test_a_file_without_names_of_images_is_refused(tmp_path):
    path, names = write(tmp_path / "a.csv", ROWS), document(tmp_path / "inat.json", {"annotations": []})
    with pytest.raises(ValueError, match=r"inat\.json: no list 'images'"):
        list(TASK.read(TaskFiles([path], [names])))
