"""The section `evaluation`: labels of its sources, and what is refused."""

import pytest
from pydantic import ValidationError

from comem_ray.config import EvaluationConfig, EvaluationSourceConfig


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"task": "okvqa"}, "okvqa"),
        ({"task": "infoseek", "language": "es"}, "infoseek-es"),
        ({"task": "infoseek", "language": "es", "name": "spanish"}, "spanish"),
    ],
)
def test_a_source_is_called_by_its_name_else_by_task_and_language(fields: dict[str, str], label: str) -> None:
    assert EvaluationSourceConfig(paths=["q.json"], **fields).label == label


def test_two_sources_of_one_label_need_names() -> None:
    source = {"task": "okvqa", "paths": ["q.json"]}
    with pytest.raises(ValidationError, match="okvqa"):
        EvaluationConfig.model_validate({"sources": [source, source]})
    named = EvaluationConfig.model_validate({"sources": [source, {**source, "name": "again"}]})
    assert [s.label for s in named.sources] == ["okvqa", "again"]


@pytest.mark.parametrize(
    "fields",
    [{"k": [0]}, {"modes": []}, {"knowledge_sizes": ["most"]}, {"sources": [{"task": "imagenet", "paths": []}]}],
)
def test_what_cannot_be_asked_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EvaluationConfig.model_validate(fields)
