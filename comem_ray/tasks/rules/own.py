"""Scoring rules of a configuration: `scoring_rules: {name: "module:function"}`.

The function takes (prediction, gold) and returns a score in 0..1. The configuration alone names modules; a file of
questions or samples only names a rule, so that data never decides which code runs. Knows no task.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from comem_ray.config import ConfigError
from comem_ray.tasks.rules.scoring import RULES, OwnRules, UnknownRule


def import_rules(settings: Mapping[str, str]) -> OwnRules:
    """The functions of a configuration's `scoring_rules`. Raises ConfigError where one cannot be imported."""
    if taken := [name for name in settings if name in RULES]:
        raise ConfigError(f"field scoring_rules.{taken[0]}: is a rule of the library, give yours another name")
    return {name: _import_rule(name, target) for name, target in settings.items()}


def check_rules(field: str, names: Iterable[str], own_rules: OwnRules) -> None:
    """Raises ConfigError where one of `names`, which stand in the file of the configuration's `field`, is unknown."""
    if unknown := sorted({*names} - {*RULES, *own_rules}):
        raise ConfigError(f"field {field}: {UnknownRule(unknown[0], own_rules)}")


def _import_rule(name: str, target: str) -> Callable[[str, Any], float]:
    module, _, function = target.partition(":")
    want = 'want "module:function" of a module that Python finds: an installed one, or a file below the working folder'
    try:
        rule = getattr(importlib.import_module(module), function, None)
    except Exception as error:  # whatever the module does when it is imported
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"field scoring_rules.{name}: {module} cannot be imported ({reason}), {want}") from error
    if not callable(rule):
        raise ConfigError(f"field scoring_rules.{name}: {module} has no function {function!r}, {want}")
    return rule
