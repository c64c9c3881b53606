"""Every task is one object of the same methods, and reads its published files."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from support.published import write_published

from comem_ray.config.evaluation import TaskName
from comem_ray.tasks import load_task
from comem_ray.tasks.example import OFFICIAL, Example
from comem_ray.tasks.files import RejectedRow
from comem_ray.tasks.rules.scoring import RULES
from comem_ray.tasks.task import ScoredAnswer, Task, TaskFiles, check_gold

NAMES = get_args(TaskName)


@pytest.fixture(scope="module")
def read(tmp_path_factory) -> dict[str, list[Example | RejectedRow]]:
    """The rows of the published files of every task, the first set of each."""
    rows: dict[str, list[Example | RejectedRow]] = {}
    for source in write_published(tmp_path_factory.mktemp("published")):
        if source["task"] not in rows:
            paths = [path for name in source["paths"] for path in sorted(Path(name).parent.glob(Path(name).name))]
            files = TaskFiles(paths, [Path(name) for name in source.get("references", [])])
            rows[source["task"]] = list(load_task(source["task"]).read(files))
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_module_with_the_four_methods(name):
    task = load_task(name)
    assert isinstance(task, Task)
    assert task.name == name
    assert all(callable(getattr(task, method)) for method in ("read", "ask", "score", "aggregate"))
    assert type(task).read is not Task.read
    assert task.rule is None or task.rule in RULES


@pytest.mark.parametrize("name", NAMES)
def test_every_task_reads_asks_scores_and_aggregates(read, name):
    task, examples = load_task(name), [row for row in read[name] if isinstance(row, Example) and row.gold is not None]
    assert examples
    known = [example for example in examples if example.rule in (OFFICIAL, *RULES)]
    for example in known:
        assert (example.task, example.data_id) == (name, str(example.own_id))
        assert task.ask(example).strip()
        if task.rule is not None:
            check_gold(task.rule if example.rule == OFFICIAL else example.rule, example.gold)
    scored = task.score(known, ["dog", *[None] * (len(known) - 1)])
    assert all(isinstance(answer, ScoredAnswer) and 0 <= answer.score <= 1 for answer in scored)
    figures = task.aggregate(known, scored)
    low, high = figures["interval"]
    assert low <= figures["overall"] <= high


def test_there_are_fixtures_of_every_task(read):
    assert set(read) == set(NAMES)


def test_rows_that_make_no_example_say_where_they_stand(read):
    rejected = {name: [row for row in rows if isinstance(row, RejectedRow)] for name, rows in read.items()}
    reasons = {name: [(row.place.number, row.reason) for row in rows] for name, rows in rejected.items() if rows}
    assert reasons == {"viquae": [(1, "bad_json")], "encyclopedic_vqa": [(1, "bad_csv")]}


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"there is no task 'ovens', want one of infoseek, .*jsonl"):
        load_task("ovens")


def test_files_that_a_task_does_not_take_are_refused(tmp_path):
    with pytest.raises(ValueError, match="task infoseek does not take titles: leave it out"):
        load_task("infoseek").check_files(TaskFiles([tmp_path], titles=tmp_path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"question": " "}, "field 'question' holds no text"),
        ({"question": "\ud800"}, "which UTF-8 cannot hold"),
        ({"image_names": None}, "the row names no image"),
    ],
)
def test_what_cannot_be_asked_is_rejected(changed, message):
    fields = {"question": "What?", "image_names": []} | changed
    example = Example("a", image=None, rule="exact", gold=["x"], **fields)
    with pytest.raises(RejectedRow, match=message):
        load_task("jsonl").ask(example)


def test_a_gold_is_checked_by_its_rule():
    for rule, gold, reason in (("exact", "x", "bad_gold"), ("mine", ["x"], "bad_field")):
        with pytest.raises(RejectedRow) as caught:
            check_gold(rule, gold)
        assert caught.value.reason == reason
    check_gold("mine", ["x"], {"mine": lambda prediction, gold: 1.0})
