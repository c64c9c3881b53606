"""What one process reads: the generations that it was deployed with, or what there is now."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.serving import FinishedRun, run_stages
from support.tiny import write_items

from serve.base import Base, still_there
from serve.start import check_artifacts


def test_generations_that_are_gone_give_way_to_those_of_now(run: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(run.config.folder("items").parent, tmp_path / "run")
    config = run.config.model_copy(update={"root": str(tmp_path / "run")})
    deployed = check_artifacts(config)
    reader = Base(config, deployed)
    write_items(config.folder("items"), [7, 5], first=[900])
    run_stages(config)
    assert still_there(config, deployed) == deployed  # the reader holds them
    assert len(Base(config, deployed).items) == len(run.ids)
    del reader
    now = check_artifacts(config)
    assert still_there(config, deployed) == now != deployed


def test_folders_that_are_away_are_named(run: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(run.config.folder("items").parent, tmp_path / "run")
    config = run.config.model_copy(update={"root": str(tmp_path / "run")})
    base = Base(config, check_artifacts(config))
    assert base.missing() == {}
    moved = config.folder("memory").rename(tmp_path / "moved")
    assert base.missing() == {"memory": f"{config.folder('memory')} is missing"}
    moved.rename(config.folder("memory"))
    assert base.missing() == {}
