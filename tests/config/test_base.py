"""Sections are frozen and complete: no field that is not declared, and defaults that are valid themselves."""

from __future__ import annotations

import pytest
from pydantic import Field, ValidationError

from comem_ray.config.base import Section, WorkersConfig
from comem_ray.config.model import MemoryConfig
from comem_ray.config.retrieval import RetrievalConfig
from comem_ray.config.synthesis import TranslationConfig


def test_an_undeclared_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="speed"):
        WorkersConfig.model_validate({"count": 1, "speed": 2})


def test_a_section_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        WorkersConfig().count = 2  # type: ignore[misc]


def test_a_default_has_the_type_of_its_field() -> None:
    class Alpha(Section):
        alpha: float = Field(32)

    assert repr(Alpha()) == repr(Alpha.model_validate({"alpha": 32})) == "Alpha(alpha=32.0)"


def test_languages_have_one_form_in_every_section() -> None:
    assert RetrievalConfig(language="en_us").language == "en-US"
    assert MemoryConfig(languages=["EN", "zh_hant"]).languages == ["en", "zh-Hant"]
    assert TranslationConfig(endpoint="http://t", model="m", languages=["pt_br"]).languages == ["pt-BR"]


@pytest.mark.parametrize("language", ["English", "français", "", "en US"])
def test_what_is_no_language_is_refused_by_name(language: str) -> None:
    with pytest.raises(ValidationError, match="is not a language: want a tag"):
        RetrievalConfig(language=language)
    with pytest.raises(ValidationError, match="is not a language: want a tag"):
        MemoryConfig(languages=["en", language])
