"""One small run of the training stages for all tests of this folder: a random backbone, a few steps per stage."""

import shutil
from pathlib import Path

import pytest

from examples.countries.train.reading import QFORMER
from examples.countries.train.stages import STAGES, Run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("model"), sizes="small")
    for name in STAGES[:5]:
        run.stage(name)
    return run


@pytest.fixture
def fork(finished: Run, tmp_path: Path) -> Run:
    """A run in an empty folder, with the weights, the cache and stage reading's Q-Former of the finished one."""
    run = Run(tmp_path, sizes="small")
    shutil.copy(finished.out / QFORMER, tmp_path)
    for folder in ("weights", "cache"):
        for path in (finished.out / folder).glob("*.safetensors"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / path.name).write_bytes(path.read_bytes())
    return run
