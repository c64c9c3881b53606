"""Stage base: a stopped run resumes."""

import torch
from safetensors.torch import load_file
from support.training_run import load_backbones

from examples.countries.backbone import BASE_LORA, TOWER
from examples.countries.train.base import train_base
from examples.countries.train.stages import Run


def test_base_stopped_and_resumed_equals_uninterrupted(finished: Run, fork: Run) -> None:
    (fork.weights / BASE_LORA).unlink()
    (fork.weights / "base.checkpoint.safetensors").unlink()
    for stop, workers in ((2, 2), (None, 0)):  # nor does it matter which process makes the samples
        _, cached, book = load_backbones(fork, TOWER)
        sizes, tower = fork.sizes.base, fork.tower_digest()
        train_base(cached, fork.sampler(cached), book, fork.config(), fork.weights, sizes, tower, stop, workers)
        assert (fork.weights / BASE_LORA).exists() == (stop is None)
    whole, resumed = (load_file(run.weights / BASE_LORA) for run in (finished, fork))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
