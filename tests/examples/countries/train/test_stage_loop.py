"""The loop of a stage, on a least-squares problem: a stopped run resumes, and metrics are means."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from comem_ray.artifacts import ArtifactError
from comem_ray.training.optimizer import schedule
from examples.countries.train.stage_loop import Plan, StageLoop

PLAN = Plan(steps=40, learning_rate=0.1, weight_decay=0.01, checkpoint_every=20)
SOLUTION = torch.tensor([[1.0, -2.0, 0.5]])


class Killed(Exception):
    """Stands for whatever ends a process between two steps."""


class Stage:
    """A stage that fits a bfloat16 weight to SOLUTION; `killed_at` is the step that it does not survive."""

    def __init__(self, folder: Path, plan: Plan = PLAN, inputs: object = None, killed_at: int | None = None):
        self.weight, self.killed_at = nn.Parameter(torch.zeros(1, 3, dtype=torch.bfloat16)), killed_at
        self.numbers: list[int] = []
        self.loop = StageLoop(folder, "fit", {"weight": self.weight}, plan, inputs)

    def run(self, stop_after: int | None = None, workers: int = 0) -> Tensor:
        """The weight after the remaining steps."""
        self.loop.run(self.make, self.step, stop_after, workers)
        return self.weight.detach()

    @staticmethod
    def make(number: int) -> tuple[int, Tensor]:
        return number, torch.randn(8, 3, generator=torch.Generator().manual_seed(number))

    def step(self, inputs: tuple[int, Tensor]) -> dict[str, float]:
        number, x = inputs
        if number == self.killed_at:
            raise Killed
        self.numbers.append(number)
        loss = (x @ (self.weight.float() - SOLUTION).T).square().mean()
        loss.backward()
        return {"loss": loss.item(), "even": float("nan") if number % 2 else number}

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics without their times."""
        lines = self.loop.metrics.read_text(encoding="utf-8").splitlines()
        return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A stage that ran without a stop."""
    stage = Stage(tmp_path_factory.mktemp("finished"))
    stage.run()
    return stage


def test_it_learns(finished: Stage) -> None:
    assert finished.numbers == list(range(PLAN.steps))
    losses = [line["loss"] for line in finished.metrics()]
    assert losses[-1] < 0.1 * losses[0]


def test_killed_and_resumed_equals_uninterrupted(finished: Stage, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        Stage(tmp_path, killed_at=33).run()
    resumed = Stage(tmp_path)
    assert torch.equal(resumed.run(), finished.weight)
    assert resumed.numbers == list(range(20, 40))  # from the last checkpoint
    assert resumed.metrics() == finished.metrics()  # the line of step 30 stands there once


def test_stopped_and_resumed_equals_uninterrupted(finished: Stage, tmp_path: Path) -> None:
    for stop, workers in ((7, 0), (23, 2), (None, 0)):  # nor does it matter which process makes the inputs
        stage = Stage(tmp_path)
        weight = stage.run(stop, workers)
        assert stage.numbers[-1] + 1 == (stop or PLAN.steps)
    assert torch.equal(weight, finished.weight)


def test_a_finished_stage_takes_no_further_step(finished: Stage) -> None:
    before, again = finished.metrics(), Stage(finished.loop.checkpoint.parent)
    assert torch.equal(again.run(), finished.weight)
    assert again.numbers == []
    assert again.metrics() == before


def test_metrics_are_means_of_the_steps_since_the_line_before(finished: Stage) -> None:
    lines = finished.metrics()
    assert [line["step"] for line in lines] == [10, 20, 30, 40]
    assert [line["even"] for line in lines] == [4, 14, 24, 34]  # the odd steps, NaN, are left out
    rates = [PLAN.learning_rate * schedule(n, PLAN.steps, PLAN.warmup) for n in range(10)]
    assert lines[0]["learning_rate"] == pytest.approx(sum(rates) / 10)


@pytest.mark.parametrize(
    ("plan", "inputs"), [(replace(PLAN, steps=41), None), (replace(PLAN, weight_decay=0.0), None), (PLAN, "other")]
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, plan: Plan, inputs: object) -> None:
    Stage(tmp_path).run(stop_after=1)
    with pytest.raises(ArtifactError, match=r"fit\.checkpoint\.safetensors is of another run"):
        Stage(tmp_path, plan, inputs).run()


def test_how_often_checkpoints_are_written_may_change(finished: Stage, tmp_path: Path) -> None:
    Stage(tmp_path).run(stop_after=5)
    assert torch.equal(Stage(tmp_path, replace(PLAN, checkpoint_every=3)).run(), finished.weight)
