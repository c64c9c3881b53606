"""One tiny run and one application for all tests of the serving."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.serving import LIMITS, Library, Served, World, make_world, serving, write_clip


@pytest.fixture(scope="session")
def world(make_config: Any, tmp_path_factory: pytest.TempPathFactory) -> World:
    home = tmp_path_factory.mktemp("world")
    sections = {"retrieval": {"top_k": 3}, "reasoner": {"max_new_tokens": 8, "max_prompt_tokens": 1_000}, "api": LIMITS}
    return make_world(make_config(root=str(home / "run"), clip=write_clip(home), **sections), home)


@pytest.fixture(scope="session")
def served(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(world, tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture(scope="session")
def library(world: World) -> Library:
    return Library(world.config)
