"""A service answers from the generation it was deployed with, whatever the stages do meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.serving import FinishedRun, row, run_stages, serving, wait_until
from support.tiny import write_items
from support.tiny_run import write_memory_stage, write_run

from comem_ray.artifacts import ArtifactError
from comem_ray.client import Client
from comem_ray.config import Config
from serve.start import STAGES, check_artifacts


def copied(run: FinishedRun, folder: Path) -> Config:
    shutil.copytree(run.config.folder("items").parent, folder)
    return run.config.model_copy(update={"root": str(folder)})


def test_the_generations_are_those_of_the_manifests(run: FinishedRun) -> None:
    folders = check_artifacts(run.config).folders
    assert folders.keys() == STAGES.keys()
    assert all(len(generation) == 12 for generation in folders.values())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_missing_or_made_from_other_items_is_refused(
    run: FinishedRun, tmp_path: Path, stage: str
) -> None:
    config = copied(run, tmp_path / "run")
    (config.folder(stage) / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=f"run the stage '{STAGES[stage]}' to its end first"):
        check_artifacts(config)
    other = config.model_copy(update={"root": str(tmp_path / "other")})
    write_run(other, [4])
    write_memory_stage(other)
    shutil.copy(other.folder(stage) / "manifest.json", config.folder(stage))
    with pytest.raises(ArtifactError, match="do not belong together"):
        check_artifacts(config)


@pytest.mark.ray
def test_a_rerun_under_a_running_service_changes_no_answer(run: FinishedRun, tmp_path: Path) -> None:
    """Items, index and memory are made again of other items; then a replica dies and starts again."""
    config = copied(run, tmp_path / "run")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    with serving(FinishedRun(config, path, run.ids), tmp_path) as served:
        client = Client(served.url, timeout_s=60)

        def is_back() -> bool:
            return victim.pid not in {process.pid for process in served.replicas("Retriever")} and served.is_ready()

        def texts() -> list[str]:
            return [client.item(item_id).text for item_id in run.ids]

        def answer() -> tuple[Any, ...]:
            reply = client.answer("What is shown?", row(4)["image"], k=3)
            return reply.text, [source.item_id for source in reply.sources]

        before = texts(), answer(), client.retrieve(row(4)["image"], k=20)
        generations = served.http.get("/readyz").json()["generations"]
        assert generations == check_artifacts(config).folders
        write_items(config.folder("items"), [7, 5], first=[900])
        run_stages(config)
        now = check_artifacts(config).folders
        assert all(now[name] != generations[name] for name in STAGES)
        (victim,) = served.replicas("Retriever")
        victim.kill()
        wait_until(is_back, 90, served)
        assert (texts(), answer(), client.retrieve(row(4)["image"], k=20)) == before
        assert served.http.get("/readyz").json()["generations"] == generations
