"""Stage reading: a stopped run resumes."""

import torch
from safetensors.torch import load_file
from support.training_run import load_backbones

from comem_ray.model.checkpoint import checkpoint_fingerprint
from examples.countries.backbone import BASE_LORA, TOWER
from examples.countries.train.reading import QFORMER, train_qformer
from examples.countries.train.stages import Run


def test_reading_stopped_and_resumed_equals_uninterrupted(finished: Run, fork: Run) -> None:
    (fork.out / QFORMER).unlink()
    fingerprint = checkpoint_fingerprint(fork.merged())
    for stop in (2, None):
        _, cached, book = load_backbones(fork, TOWER, BASE_LORA)
        sizes = fork.sizes.reading
        train_qformer(cached, fork.sampler(cached), book, fork.config(), fork.out, sizes, fingerprint, stop)
        assert (fork.out / QFORMER).exists() == (stop is None)
    whole, resumed = (load_file(run.out / QFORMER) for run in (finished, fork))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
