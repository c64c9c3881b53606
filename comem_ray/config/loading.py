"""Reads and validates a configuration file. Every wrong field is named in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from comem_ray.config.run import Config

# Fields of version 0.1 that have another name now: by the section that holds them, or anywhere else ("").
RENAMED = {
    "synthesis.sources": {"format": "task"},
    "evaluation.sources": {"benchmark": "task"},
    "evaluation": {"places": "gold_positions"},
    "": {
        "pictures": "images",
        "picture_limits": "image_limits",
        "picture_side": "image_side",
        "max_picture_pixels": "max_image_pixels",
    },
}
REMOVED = {
    "evaluation.demo_languages": "it was removed; only examples/countries used it",
}


class ConfigError(ValueError):
    """A configuration that cannot be used. The message names each field and says what would be right."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads and validates a configuration file. `overrides` are "section.field=value" (value in YAML).

    Raises ConfigError, naming every wrong field, if the file or an override cannot be used.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, it holds {type(data).__name__}")
    for override in overrides:
        _override(data, override)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(_sentence(e) for e in error.errors())) from error


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override!r}: want section.field=value, such as index.factory=HNSW32")
    *parents, last = key.strip().split(".")
    node: Any = data
    for name in parents:
        node = _child(node, name)
    if isinstance(node, list) and last.isdecimal() and int(last) < len(node):
        last = int(last)  # type: ignore[assignment]
    elif not isinstance(node, dict):
        raise ConfigError(f"--set {override!r}: {'.'.join(parents)} has no field {last!r}")
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not YAML: {error}") from error


def _child(node: Any, name: str) -> Any:
    if isinstance(node, list):
        return node[int(name)] if name.isdecimal() and int(name) < len(node) else None
    if not isinstance(node, dict):
        return None
    if node.get(name) is None:
        node[name] = {}
    return node[name]


def _sentence(error: Any) -> str:
    field = ".".join(str(part) for part in error["loc"]) or "(top level)"
    if error["type"] == "extra_forbidden":
        return f"field {field}: {unknown_field(error['loc'])}"
    if error["type"] == "missing":
        return f"field {field}: is missing"
    if error["type"] == "literal_error" and error["input"] == "picture":
        return f"field {field}: 'picture' was renamed to 'image'"
    return f"field {field}: {error['msg']}, got {error['input']!r}"


def unknown_field(location: Sequence[str | int]) -> str:
    """The message about a field that does not exist: with its new name, if version 0.1 had it."""
    *parents, name = (part for part in location if isinstance(part, str))
    section = ".".join(parents)
    new = RENAMED.get(section, {}).get(name) or RENAMED[""].get(name)
    if new is not None:
        return f"it was renamed to {new!r}"
    return REMOVED.get(f"{section}.{name}", "there is no such field")
