"""What the tests of the stage folder share."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small_stage import INPUTS, begin, tree, work


@pytest.fixture
def uninterrupted(tmp_path: Path) -> dict[str, bytes]:
    """The folder that a run without accident leaves."""
    stage = begin(tmp_path / "uninterrupted")
    work(stage, INPUTS)
    stage.close(INPUTS)
    return tree(stage.path)
