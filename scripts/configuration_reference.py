"""Prints docs/configuration.md, one table per section of the configuration, from the fields themselves.

python -m scripts.configuration_reference > docs/configuration.md

tests/test_docs.py asserts that the committed page is what this prints now.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from comem_ray.config import Config
from comem_ray.config.base import Section

HEAD = """# What does each field of the configuration mean?

One YAML file of `configs/` describes a run completely. Every job and the application read the same one.

- `comem config FILE` checks a file and prints it with every default.
- `--set section.field=value` replaces a field, `--set section.list.0.field=value` one in a list.
- A field that does not exist is refused.
- A relative path is below `$COMEM_HOME` (`./runs` under make, `~/comem` if it is not set).
- A field marked *required* has no default. A section whose default is `null` may be left out.

This page is printed from the code: `python -m scripts.configuration_reference > docs/configuration.md`.
"""
TYPES = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}
BOUNDS = {
    "ge": "at least {}",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "min_length": "length at least {}",
}

Paths = dict[type[Section], list[str]]
"""The sections, each with the places at which it stands in a file, such as `ingest.workers`."""


def reference() -> str:
    """The page, in Markdown."""
    paths = section_paths(Config, "")
    return "\n".join([HEAD, *(line for section in paths for line in _table(section, paths))])


def section_paths(section: type[Section], path: str) -> Paths:
    """`section` and all sections that it holds, in the order of the file."""
    paths: Paths = {section: [path]}
    for name, field in section.model_fields.items():
        for inner, in_list in _sections_of(field.annotation):
            inner_path = f"{path}.{name}".lstrip(".") + "[]" * in_list
            for held, held_paths in section_paths(inner, inner_path).items():
                paths.setdefault(held, []).extend(held_paths)
    return paths


def _sections_of(annotation: Any, in_list: bool = False) -> Iterator[tuple[type[Section], bool]]:
    """The sections that a field holds, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation, in_list
    for argument in get_args(annotation):
        yield from _sections_of(argument, in_list or get_origin(annotation) is list)


def _table(section: type[Section], paths: Paths) -> Iterator[str]:
    yield f"## {_title(paths[section])}\n"
    if section.__doc__:
        yield _wrapped(section.__doc__)
    if len(paths[section]) > 1:
        yield _wrapped(f"In {', '.join(f'`{path}`' for path in paths[section])}.")
    yield "| field | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in section.model_fields.items():
        cells = (f"`{name}`", _type(field, paths), _default(field), _meaning(field))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _wrapped(text: str) -> str:
    text = " ".join(text.split())
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def _title(paths: list[str]) -> str:
    """The path of a section; of one that stands in several places, its names there."""
    if len(paths) > 1:
        paths = list(dict.fromkeys(path.rpartition(".")[2] for path in paths))
    return ", ".join(f"`{path}`" for path in paths) if paths != [""] else "The file"


def _type(field: FieldInfo, paths: Paths) -> str:
    bounds = [
        text.format(_number(getattr(bound, name)))
        for bound in field.metadata
        for name, text in BOUNDS.items()
        if hasattr(bound, name)
    ]
    return ", ".join([_type_name(field.annotation, paths), *bounds])


def _type_name(annotation: Any, paths: Paths) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in paths:
        title = _title(paths[annotation])
        anchor = "".join(c for c in title.replace(" ", "-") if c.isalnum() or c in "-_")
        return f"[section](#{anchor})"
    if origin is Annotated:
        return _type_name(arguments[0], paths)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(argument, paths) for argument in arguments)
    if origin is list:
        return f"list of {_type_name(arguments[0], paths)}"
    if origin is dict:
        return f"mapping of {_type_name(arguments[0], paths)} to {_type_name(arguments[1], paths)}"
    return TYPES[annotation]


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "*required*"
    if isinstance(default, Section):
        default = default.model_dump(exclude_unset=True)
        if not default:
            return "its defaults"
    if isinstance(default, int) and not isinstance(default, bool):
        return f"`{_number(default)}`"
    text = yaml.safe_dump(default, default_flow_style=True, sort_keys=False, width=10_000)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def _number(value: float) -> str:
    return f"{value:_}" if isinstance(value, int) and value >= 10_000 else f"{value}"


def _meaning(field: FieldInfo) -> str:
    """The field's description; of a section without one, the first line of what it says of itself."""
    if field.description:
        return field.description
    docs = [section.__doc__ or "" for section, _ in _sections_of(field.annotation)]
    return docs[0].strip().partition("\n")[0] if docs else ""


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m scripts.configuration_reference", description=__doc__).parse_args()
    sys.stdout.write(reference())
