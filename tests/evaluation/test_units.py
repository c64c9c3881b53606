"""Units of an evaluation: every question once, the timed ones again, and digests that change with what counts."""

from dataclasses import replace

import pytest

from comem_ray.artifacts import ArtifactError, StageFolder
from comem_ray.evaluation.predictions import TIMES
from comem_ray.evaluation.questions import unpacked
from comem_ray.evaluation.units import evaluation_identity, evaluation_units
from comem_ray.retrieval.index import STAGE as INDEX
from comem_ray.tasks.example import Example
from comem_ray.tasks.images import ImageAt


@pytest.fixture
def config(make_config, tmp_path):
    StageFolder(tmp_path / "index", INDEX, {"made by": "a test"}).close([])
    evaluation = {"questions": "q.parquet", "questions_per_unit": 2, "timed": 1}
    return make_config(root=str(tmp_path), evaluation=evaluation)


def questions(folder="/here", mark="1"):
    image = ImageAt(f"{folder}/a.png", mark=mark)
    return [Example(f"q{i}", f"{i}?", None, "exact", ["x"], image_at=image) for i in range(5)]


def digests(config, some, right=(), **changes):
    evaluation = config.evaluation.model_copy(update=changes)
    return {unit["unit"]: unit["inputs"] for unit in evaluation_units(config, evaluation, some, list(right))}


def test_every_question_is_in_one_unit_and_the_timed_ones_in_another(config):
    units = evaluation_units(config, config.evaluation, questions(), [])
    ids = {unit["unit"]: [q.data_id for q in unpacked(unit["questions"])] for unit in units}
    assert ids == {"part-000000": ["q0", "q1"], "part-000001": ["q2", "q3"], "part-000002": ["q4"], TIMES: ["q0"]}
    assert TIMES not in digests(config, questions(), timed=0)


def test_a_digest_changes_with_the_questions_of_its_unit(config):
    before = digests(config, questions())
    changed = questions()
    changed[4] = replace(changed[4], question="another?")
    after = digests(config, changed)
    assert {name for name in before if before[name] != after[name]} == {"part-000002"}
    assert digests(config, questions(mark="2")).keys() == before.keys()
    assert not set(digests(config, questions(mark="2")).values()) & set(before.values())
    assert digests(config, questions(folder="/there")) == before  # the same images in another folder


def test_the_right_items_count_where_a_subset_is_searched(config):
    assert digests(config, questions(), right=["a"]) == digests(config, questions())
    sizes = {"knowledge_sizes": [10]}
    assert digests(config, questions(), right=["a"], **sizes) != digests(config, questions(), **sizes)


def test_an_unfinished_index_is_refused(config, tmp_path):
    (tmp_path / "index" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="manifest"):
        evaluation_units(config, config.evaluation, questions(), [])


def test_the_identity_has_what_predictions_depend_on_and_nothing_else(config):
    def changed(**fields):
        return config.model_copy(update={"evaluation": config.evaluation.model_copy(update=fields)})

    identity = evaluation_identity(config, config.evaluation)
    for same in (changed(batch=3), changed(timed=4), changed(questions_per_unit=7)):
        assert evaluation_identity(same, same.evaluation) == identity
    for other in (changed(k=[2]), changed(gold_positions=[1]), config.model_copy(update={"seed": 9})):
        assert evaluation_identity(other, other.evaluation) != identity
