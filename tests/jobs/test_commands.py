"""The example command in a job's docstring names a configuration that the job can work with."""

import importlib
import re
from pathlib import Path

import pytest

from comem_ray.config import Config, load_config

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"ray job submit --working-dir \. -- python -m jobs\.(\w+) --config (\S+)")
JOBS = sorted(
    path.stem
    for path in (REPOSITORY / "jobs").glob("*.py")
    if path.stem not in ("__init__", "common", "console", "item_shards", "refusals")
)
NEEDS = {"evaluate": "evaluation", "synthesize": "synthesis", "train": "training"}
"""The section without which a job refuses its configuration."""


def example(job: str) -> Config:
    """The configuration of the command in the docstring of `jobs.<job>`."""
    commands = COMMAND.findall(importlib.import_module(f"jobs.{job}").__doc__ or "")
    assert [name for name, _ in commands] == [job]
    return load_config(str(REPOSITORY / commands[0][1]))


@pytest.mark.parametrize("job", JOBS)
def test_the_example_command_names_a_configuration_that_loads(job: str) -> None:
    assert example(job).name


@pytest.mark.parametrize(("job", "section"), NEEDS.items())
def test_the_example_configuration_has_the_section_that_the_job_needs(job: str, section: str) -> None:
    assert getattr(example(job), section) is not None


# Made for synthesis and training alone, on the items and index of qwen2_5_vl_7b.yaml.
WITHOUT_EVALUATION = {"training_data"}
RUNS = [path for path in sorted((REPOSITORY / "configs").glob("*.yaml")) if path.stem not in WITHOUT_EVALUATION]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_shipped_configuration_of_a_whole_run_says_what_to_evaluate(path: Path) -> None:
    evaluation = load_config(str(path)).evaluation
    assert evaluation is not None
    assert evaluation.questions or evaluation.sources
