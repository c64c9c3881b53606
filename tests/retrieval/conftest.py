"""A run of items, embeddings and index/ in one process, without Ray: the actors of the jobs are plain classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import write_items
from tiny_clip import write_clip

from comem_ray.artifacts import StageFolder
from comem_ray.config import Config
from comem_ray.retrieval.clip import locate
from jobs.build_index import BuildIndex
from jobs.embed_items import EmbedShard


@pytest.fixture(scope="session")
def make_run(make_config, tmp_path_factory) -> Callable[..., Config]:
    """A function (name, sizes of the item shards, fields of `index`) -> configuration of a finished run."""
    home = tmp_path_factory.mktemp("runs")
    section, _ = write_clip(home)

    def make(name: str, sizes: list[int], texts: bool = True, **index) -> Config:
        clip = {**section, "texts": texts, "batch_size": 16}
        config = make_config(root=str(home / name), clip=clip, index={"recall_queries": 20, **index})
        write_items(config.folder("items"), sizes)
        source = locate(config.clip)
        identity = {"clip": source.fingerprint, "width": 24, "texts": texts}
        stage = StageFolder(config.folder("embeddings"), "embed_items", identity)
        units = [f"part-0000-{i:06d}" for i in range(len(sizes))]
        work(stage, EmbedShard(config, stage), units)
        stage.close(units)
        stage = StageFolder(config.folder("index"), "build_index", {"clip": source.fingerprint})
        kinds = ["picture", "text"] if texts else ["picture"]
        work(stage, BuildIndex(config, stage), ["items", *kinds])
        stage.close(["items", *kinds], {"kinds": kinds})
        return config

    return make


def work(stage: StageFolder, actor, units: list[str]) -> None:
    for unit in units:
        actor({"unit": [unit], "inputs": [""]})


@pytest.fixture(scope="session")
def finished(make_run) -> Config:
    """A run of 90 items in three shards, one of them empty."""
    return make_run("finished", [50, 0, 40])


@pytest.fixture(scope="session")
def home(finished) -> Path:
    return Path(finished.root).parent
