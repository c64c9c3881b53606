"""Where the paths of a run start: below $COMEM_HOME, or below ~/comem if it is not set."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_HOME = "~/comem"


def resolve(path: str) -> Path:
    """The absolute path of a path in a configuration: a relative one is below $COMEM_HOME (default ~/comem)."""
    home = Path(os.environ.get("COMEM_HOME") or DEFAULT_HOME).expanduser().absolute()
    return home / Path(path).expanduser()


def home_hint(path: Path) -> str:
    """The end of a message about a missing `path`: says that COMEM_HOME is not set, if that may be the reason."""
    if os.environ.get("COMEM_HOME") or not path.is_relative_to(Path(DEFAULT_HOME).expanduser()):
        return ""
    return f" (COMEM_HOME is not set; paths are below {DEFAULT_HOME})"
