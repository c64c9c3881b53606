"""The pages of the repository, in parts: blocks, prose, anchors of headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])


class Block(NamedTuple):
    language: str  # "" where the fence names none
    text: str
    before: str  # the line before the fence


def name(page: Path) -> str:
    """The path of a page in the repository."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    for match in re.finditer(r"(?m)^(.*)\n```(\w*)\n((?:.*\n)*?)```$", "\n" + page.read_text(encoding="utf-8")):
        yield Block(match[2], match[3], match[1])


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"(?m)^```(?:.*\n)*?```$", "", page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.*)$", prose(page))
    return {re.sub(r"[^\w -]", "", re.sub(r"\]\(.*?\)", "", h).lower()).replace(" ", "-") for h in headings}
