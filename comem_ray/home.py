"""Where the paths of a run start (below $COMEM_HOME, or below ~/comem if it is not set), and how a disk spells them."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

DEFAULT_HOME = "~/comem"


def resolve(path: str) -> Path:
    """The absolute path of a path in a configuration: a relative one is below $COMEM_HOME (default ~/comem)."""
    home = Path(os.environ.get("COMEM_HOME") or DEFAULT_HOME).expanduser().absolute()
    return as_on_disk(home / Path(path).expanduser())


def as_on_disk(path: Path) -> Path:
    """`path` with the accents of each part composed (NFC) or decomposed (NFD), as the disk has it.

    A part that exists in neither form stays as it is, and so does a path that may not be looked at.
    """
    try:
        if str(path).isascii() or path.exists():
            return path
        known = Path()
        for part in path.parts:
            spellings = (part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))
            known = next((known / spelling for spelling in spellings if (known / spelling).exists()), known / part)
        return known
    except OSError:  # no permission, a name too long
        return path


def home_hint(path: Path) -> str:
    """The end of a message about a missing `path`: says that COMEM_HOME is not set, if that may be the reason."""
    if os.environ.get("COMEM_HOME") or not path.is_relative_to(Path(DEFAULT_HOME).expanduser()):
        return ""
    return f" (COMEM_HOME is not set; paths are below {DEFAULT_HOME})"
