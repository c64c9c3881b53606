"""Reads and validates a configuration file. Every wrong field is named in one sentence.

YAML reads some words without quotes as something else than text (`no` is false, `22:30` is 1350). Where a field wants
text, the message says so, in the words of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
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
        text = Path(path).read_text(encoding="utf-8")
        data = yaml.safe_load(text)
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
        words = _words(text, overrides)
        raise ConfigError(f"{path}: " + "; ".join(_sentence(e, words) for e in error.errors())) from error


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


Words = list[tuple[tuple[str, ...], Any]]
"""The nodes of the file and of every override, each below the field that it replaces; the last ones first."""


def _words(text: str, overrides: Sequence[str]) -> Words:
    written = [((), text)]
    for override in overrides:
        key, _, value = override.partition("=")
        written.append((tuple(key.strip().split(".")), value))  # type: ignore[arg-type]
    return [(path, yaml.compose(one, yaml.SafeLoader)) for path, one in reversed(written)]


def _word_at(words: Words, location: Sequence[Any], key: Any = None) -> str | None:
    """The value at `location` as it is written, or the key there that was read as `key`; None where it has quotes."""
    parts = [str(part) for part in location]
    for path, node in words:
        if tuple(parts[: len(path)]) != path:
            continue
        node = _node(node, parts[len(path) :])
        if key is not None:
            keys = [k.value for k, _ in node.value] if isinstance(node, yaml.MappingNode) else []
            return next((word for word in keys if yaml.safe_load(word) == key), None)
        if isinstance(node, yaml.ScalarNode) and node.style is None:
            return str(node.value)
    return None


def _node(node: Any, parts: Sequence[str]) -> Any:
    """The node at `parts`; what is behind a single word names the kinds that a field may have."""
    for part in parts:
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if getattr(key, "value", None) == part), None)
        elif isinstance(node, yaml.SequenceNode):
            node = node.value[int(part)] if part.isdecimal() and int(part) < len(node.value) else None
    return node


def _not_text(value: Any) -> str | None:
    """What YAML has made of a word that wants quotes; None for text, null, lists and mappings."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    return f"the date {value}" if isinstance(value, date) else None


def _sentence(error: Any, words: Words) -> str:
    field = ".".join(str(part) for part in error["loc"]) or "(top level)"
    if error["type"] == "extra_forbidden":
        return f"field {field}: {unknown_field(error['loc'])}"
    if error["type"] == "missing":
        return f"field {field}: is missing"
    if error["type"] == "literal_error" and error["input"] == "picture":
        return f"field {field}: 'picture' was renamed to 'image'"
    kind = _not_text(error["input"])
    if kind is not None and error["type"] in ("invalid_key", "string_type", "literal_error"):
        return _quotes_wanted(error, field, kind, words)
    return f"field {field}: {error['msg']}, got {error['input']!r}"


def _quotes_wanted(error: Any, field: str, kind: str, words: Words) -> str:
    *parents, last = error["loc"]
    is_key = error["type"] == "invalid_key" or last == "[key]"
    if last == "[key]":
        parents = parents[:-1]
    word = _word_at(words, parents, error["input"]) if is_key else _word_at(words, error["loc"])
    if word is None:
        return f"field {field}: {error['msg']}, got {kind}"
    if is_key:
        field = ".".join([*map(str, parents), word])
    allowed = error["type"] != "literal_error" or f"'{word}'" in error["msg"]
    advice = f', put it in quotes: "{word}"' if allowed else ""
    return f"field {field}: {error['msg']}; {word} is {kind} in YAML{advice}"


def unknown_field(location: Sequence[str | int]) -> str:
    """The message about a field that does not exist: with its new name, if version 0.1 had it."""
    *parents, name = (part for part in location if isinstance(part, str))
    section = ".".join(parents)
    new = RENAMED.get(section, {}).get(name) or RENAMED[""].get(name)
    if new is not None:
        return f"it was renamed to {new!r}"
    return REMOVED.get(f"{section}.{name}", "there is no such field")
