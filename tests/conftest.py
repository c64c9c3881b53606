"""A tiny world for all tests: random backbones of both families and a configuration that runs on them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import pytest
from support.tiny import FAMILIES

# No test may reach for a model hub; a name that is not on disk fails at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The models are tiny: threads would wait for one another longer than they compute, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Nothing is reported about the tests. That is a thread less: Ray Data's logs tracebacks, which parses code, and two
# threads that parse can disturb each other in Python 3.11 ("AST constructor recursion depth mismatch") if garbage is
# collected meanwhile.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Clusters of the tests, and the processes that join them, share one token and leave the user's own alone.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

RAY_TESTS = {"jobs", "test_cluster.py"}  # below tests/
TIMING_TESTS = {"test_unfinished.py", "test_rates.py", "test_json_body.py", "test_arrival.py", "test_lingering.py"}
RAY_FIXTURES = {"served", "small"}  # of tests/serve: most of its tests need no Ray


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what `make test-unit` leaves out: tests that start Ray, and those of the example's models."""
    for item in items:
        parts = item.path.relative_to(Path(__file__).parent).parts
        starts_ray = parts[0] == "serve" and RAY_FIXTURES.intersection(item.fixturenames)  # type: ignore[attr-defined]
        if parts[0] in RAY_TESTS or starts_ray:
            item.add_marker("ray")
        if parts[-1] in TIMING_TESTS:
            item.add_marker("timing")
        if parts[0] == "examples" and "world" not in parts:
            item.add_marker("example")


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a tiny random backbone of each family (width 64, float32)."""
    from comem_ray.model.random_backbone import write_random_backbone

    folders = {}
    for family in FAMILIES:
        folders[family] = tmp_path_factory.mktemp(family)
        write_random_backbone(folders[family], family)  # type: ignore[arg-type]
    return folders


@pytest.fixture(scope="session")
def make_config(backbones: dict[str, Path]):
    """A function (family, section overrides) -> Config over a tiny backbone, float32 on the CPU."""
    from comem_ray.config import Config

    def make(family: str = "qwen2_5_vl", **sections: dict[str, Any]) -> Config:
        data: dict[str, Any] = {
            "name": "tiny",
            "root": "tiny",
            "ingest": {"sources": [{"path": "items.tsv"}]},
            "clip": {"model": "ViT-B-32"},
            "backbone": {
                "model": str(backbones[family]),
                "precision": "float32",
                "item_pixels": {"min": 784, "max": 3136},
                "question_pixels": {"min": 784, "max": 6272},
            },
            "adapter": {"qformer_layers": 3, "qformer_heads": 4},
            "reasoner": {"max_new_tokens": 8, "max_prompt_tokens": 4096},
        }
        for name, fields in sections.items():
            data[name] = {**data.get(name, {}), **fields} if isinstance(fields, dict) else fields
        return Config.model_validate(data)

    return make
