"""The section `synthesis`: how many items a prompt has, and what is refused."""

import pytest
from pydantic import ValidationError

from comem_ray.config import SynthesisConfig

SOURCE = {"task": "jsonl", "path": "questions.jsonl"}


def synthesis(**fields: object) -> SynthesisConfig:
    return SynthesisConfig.model_validate({"sources": [SOURCE], **fields})


def test_a_prompt_has_all_items_of_a_sample_unless_fewer_are_named() -> None:
    assert synthesis(top_k=5).prompt_items == 5
    assert synthesis(top_k=5, answer_with_items=2).prompt_items == 2
    assert synthesis(top_k=5, answer_with_items=0).prompt_items == 0


def test_a_prompt_cannot_have_more_items_than_a_sample() -> None:
    with pytest.raises(ValidationError, match=r"answer_with_items \(4\) must not exceed top_k \(3\)"):
        synthesis(top_k=3, answer_with_items=4)


@pytest.mark.parametrize("source", [{"task": "imagenet", "path": "a"}, {"path": "a"}, {"task": "jsonl"}])
def test_a_source_names_a_task_and_its_file(source: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        synthesis(sources=[source])


def test_an_endpoint_is_a_url_and_languages_are_codes() -> None:
    translation = {"endpoint": "http://translator:8000/v1", "model": "m"}
    assert len(synthesis(translation=translation).translation.languages) == 9  # type: ignore[union-attr]
    for wrong in ({"endpoint": "translator"}, {"languages": ["pt BR"]}, {"languages": []}):
        with pytest.raises(ValidationError):
            synthesis(translation={**translation, **wrong})
