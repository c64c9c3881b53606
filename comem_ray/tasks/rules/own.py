"""Scoring rules of one's own: `scoring_rules: {name: "module:function"}`, or a file with one function per rule.

The function takes (prediction, gold) and returns a score in 0..1. The configuration alone names modules; a file of
questions or samples only names a rule, so that data never decides which code runs. Knows no task.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from comem_ray.config import ConfigError
from comem_ray.tasks.rules.scoring import RULES, OwnRules, UnknownRule


def import_rules(settings: Mapping[str, str]) -> OwnRules:
    """The functions of a configuration's `scoring_rules`. Raises ConfigError where one cannot be imported."""
    if taken := [name for name in settings if name in RULES]:
        raise ConfigError(f"field scoring_rules.{taken[0]}: is a rule of the library, give yours another name")
    return {name: _import_rule(name, target) for name, target in settings.items()}


def rules_in(path: Path) -> OwnRules:
    """The public functions of a Python file, each a rule by its name. Raises ConfigError where there is none."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"{path} is not there: want a Python file with one function (prediction, gold) per rule")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the module does when it is run
        raise ConfigError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    functions = {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    if not functions:
        raise ConfigError(f"{path} holds no function: want one (prediction, gold) -> score in 0..1 per rule")
    if taken := [name for name in functions if name in RULES]:
        raise ConfigError(f"{path}: {taken[0]} is a rule of the library, give yours another name")
    return functions


def check_rules(field: str, names: Iterable[str], own_rules: OwnRules) -> None:
    """Raises ConfigError where one of `names`, which stand in the file of the configuration's `field`, is unknown."""
    if unknown := sorted({*names} - {*RULES, *own_rules}):
        raise ConfigError(f"field {field}: {UnknownRule(unknown[0], own_rules)}")


def _import_rule(name: str, target: str) -> Callable[[str, Any], float]:
    module, _, function = target.partition(":")
    want = 'want "module:function" of a module that Python finds: an installed one, or a file below the working folder'
    try:
        rule = getattr(_module(module), function, None)
    except Exception as error:  # whatever the module does when it is imported
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"field scoring_rules.{name}: {module} cannot be imported ({reason}), {want}") from error
    if not callable(rule):
        raise ConfigError(f"field scoring_rules.{name}: {module} has no function {function!r}, {want}")
    return rule


def _module(name: str) -> ModuleType:
    """The module; of a command, on whose path the working folder is not, one of the files below it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        file = Path(*name.split(".")).with_suffix(".py")
        spec = importlib.util.spec_from_file_location(name, file)
        if error.name != name or not file.is_file() or spec is None or spec.loader is None:
            raise
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
