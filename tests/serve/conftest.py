"""One tiny run and one application for all tests of the serving."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.serving import LIMITS, FinishedRun, Served, make_run, serving, write_clip
from support.small_app import Small, small_app

from comem_ray.client import Client
from comem_ray.pipeline import Pipeline


@pytest.fixture(scope="session")
def run(make_config: Any, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    home = tmp_path_factory.mktemp("home")
    sections = {"retrieval": {"top_k": 3}, "reasoner": {"max_new_tokens": 8, "max_prompt_tokens": 1_000}, "api": LIMITS}
    return make_run(make_config(root=str(home / "run"), clip=write_clip(home), **sections), home)


@pytest.fixture(scope="session")
def served(run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(run, tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture(scope="session")
def client(served: Served) -> Client:
    return Client(served.url, timeout_s=60)


@pytest.fixture(scope="session")
def pipeline(run: FinishedRun) -> Pipeline:
    """The run through the library alone, in this process: what the served answers must equal."""
    return Pipeline(run.config, "cpu")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with small_app(tmp_path_factory.mktemp("small")) as small:
        yield small
