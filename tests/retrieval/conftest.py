"""A run of items, embeddings and index/ in one process, without Ray: the actors of the jobs are plain classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.tiny_clip import write_clip
from support.tiny_run import write_run

from comem_ray.config import Config


@pytest.fixture(scope="session")
def make_run(make_config, tmp_path_factory) -> Callable[..., Config]:
    """A function (name, sizes of the item shards, fields of `index`) -> configuration of a finished run."""
    home = tmp_path_factory.mktemp("runs")
    section, _ = write_clip(home)

    def make(name: str, sizes: list[int], texts: bool = True, **index) -> Config:
        clip = {**section, "texts": texts, "batch_size": 16}
        config = make_config(root=str(home / name), clip=clip, index={"recall_queries": 20, **index})
        write_run(config, sizes)
        return config

    return make


@pytest.fixture(scope="session")
def finished(make_run) -> Config:
    """A run of 90 items in three shards, one of them empty."""
    return make_run("finished", [50, 0, 40])


@pytest.fixture(scope="session")
def home(finished) -> Path:
    return Path(finished.root).parent
