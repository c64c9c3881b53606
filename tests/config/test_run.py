"""The whole configuration: every field of every section explains itself, and a run has its folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from comem_ray.config import Config


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """`model` and the sections of its fields, those in lists and optional ones too."""
    yield model
    for field in model.model_fields.values():
        for section in models(field.annotation):
            yield from sections(section)


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models(argument)


@pytest.mark.parametrize("section", dict.fromkeys(sections(Config)), ids=lambda s: s.__name__)
def test_every_section_and_every_field_has_a_description(section: type[BaseModel]) -> None:
    assert section.__doc__
    assert [name for name, field in section.model_fields.items() if not field.description] == []


def test_a_stage_has_its_folder_below_the_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_config) -> None:
    monkeypatch.setenv("COMEM_HOME", str(tmp_path))
    assert make_config(root="small").folder("items") == tmp_path / "small" / "items"
