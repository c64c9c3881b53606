"""Scoring rules of a configuration: imported by name, refused in a sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from comem_ray.config import Config, ConfigError
from comem_ray.tasks.rules.own import check_rules, import_rules
from comem_ray.tasks.rules.scoring import score


@pytest.fixture
def module(tmp_path, monkeypatch) -> Iterator[str]:
    """A module with one rule."""
    source = "def same(prediction, gold):\n    return float(prediction in gold)\n\n\nLIMIT = 3\n"
    (tmp_path / "rules_of_mine.py").write_text(source)
    (tmp_path / "broken_rules.py").write_text("import nothing_like_this\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "rules_of_mine"
    sys.modules.pop("rules_of_mine", None)


def test_rules_are_imported(module):
    rules = import_rules({"same": f"{module}:same"})
    assert score("same", "Sofia", ["Sofia"], rules) == 1.0
    assert score("same", "sofia", ["Sofia"], rules) == 0.0


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("same", "no_such_module:same", "field scoring_rules.same: no_such_module cannot be imported"),
        ("same", "broken_rules:same", "No module named 'nothing_like_this'"),
        ("same", "rules_of_mine:other", "rules_of_mine has no function 'other', want"),
        ("same", "rules_of_mine:LIMIT", "rules_of_mine has no function 'LIMIT', want"),
        ("exact", "rules_of_mine:same", "field scoring_rules.exact: is a rule of the library"),
    ],
)
def test_what_cannot_be_imported_is_refused(module, name, target, message):
    with pytest.raises(ConfigError, match=message):
        import_rules({name: target})


def test_names_of_a_file_must_be_known(module):
    check_rules("evaluation.questions", ["exact", "same"], import_rules({"same": f"{module}:same"}))
    with pytest.raises(ConfigError, match=r"field evaluation\.questions: there is no scoring rule 'same': want"):
        check_rules("evaluation.questions", ["exact", "same"], {})


def test_the_configuration_wants_module_and_function(make_config):
    config = make_config()
    for target in ("module", "module:", ":function", "a module:function", "module:function()"):
        data = config.model_dump(mode="json") | {"scoring_rules": {"same": target}}
        with pytest.raises(ValidationError, match="scoring_rules"):
            Config.model_validate(data)
