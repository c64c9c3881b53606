"""The rank of the right item, and questions that fail. All else runs in tests/jobs/test_evaluate.py, on real stages."""

from __future__ import annotations

import pytest
from support.tiny import item_row, png
from support.tiny_clip import write_clip
from support.tiny_run import write_memory_stage, write_run

from comem_ray.evaluation.arms import Arm
from comem_ray.evaluation.evaluator import Evaluator, rank
from comem_ray.tasks.example import Example


def test_rank():
    assert [rank(list("abc"), gold) for gold in (["b"], ["z"], [], ["c", "a"])] == [2, 0, None, 1]


@pytest.fixture(scope="module")
def config(make_config, tmp_path_factory):
    """Twelve items, of which number 8 is larger than what the evaluation takes: its image is refused."""
    home = tmp_path_factory.mktemp("evaluator")
    clip, _ = write_clip(home)
    evaluation = {"questions": "q.parquet", "k": [1], "batch": 3, "modes": ["none", "rag", "memory"]}
    config = make_config(
        root=str(home / "run"), clip=clip, evaluation=evaluation, scoring_rules={"only_ann": "operator:getitem"}
    )
    write_run(config, [12])
    write_memory_stage(config)
    images = config.ingest.images.model_copy(update={"max_pixels": 3_000})
    return config.model_copy(update={"ingest": config.ingest.model_copy(update={"images": images})})


def test_a_question_that_fails_costs_itself(config):
    def question(data_id: str, number: int, **fields) -> Example:
        return Example(data_id, fields.pop("text", "Who?"), item_row(number)["image"], "exact", ["Ann"], **fields)

    questions = [
        question("sound", 1),
        question("item", 8, fault=None),  # its own image is refused by retrieval
        question("long", 2, text="long " * 2_000),
        question("missing", 3, fault="image_missing"),
        Example("rule", "Who?", item_row(4)["image"], "only_ann", ["Ann"]),
        Example("last", "Who?", png(5, 40, 44), "exact", ["Ann"]),
    ]
    evaluator = Evaluator(config, config.evaluation)
    rows = evaluator.predictions(questions)
    assert len(rows) == 3 * len(questions)
    faults = {(row["data_id"], row["mode"]): (row["fault"], row["fault_detail"]) for row in rows}
    for mode in ("none", "rag", "memory"):
        assert faults["sound", mode] == faults["last", mode] == (None, None)
        assert faults["long", mode][0] == "prompt_too_long"
        assert faults["missing", mode][0] == "image_missing"
        assert faults["rule", mode][0] == "scoring_failed"
        assert faults["rule", mode][1].startswith("rule only_ann fails: TypeError")
        assert faults["item", mode][0] == "item_image_too_many_pixels"
    assert all(row["prediction"] == "" and row["score"] == 0 for row in rows if row["data_id"] == "long")
    times = evaluator.times(questions)
    assert {row["data_id"] for row in times} >= {"sound", "last"}
    assert not {"long", "missing"} & {row["data_id"] for row in times}


def test_an_item_that_cannot_be_read_costs_the_questions_that_get_it(config):
    questions = [Example(f"q{n}", "Who?", item_row(n)["image"], "exact", ["Ann"]) for n in (0, 1, 2)]
    evaluator = Evaluator(config, config.evaluation)
    retrieved = {f"q{n}": [item_row(8 if n == 1 else 5)["item_id"]] for n in range(3)}
    cases = evaluator._cases(Arm("rag", 1), questions, retrieved)
    assert [case.fault for case in cases] == [None, "item_image_too_many_pixels", None]
    assert "3,000" in cases[1].fault_detail
