"""Stage base: its LoRA can be merged, and a stopped run resumes."""

import torch
from safetensors.torch import load_file
from support.training_run import load_backbones

from examples.countries.backbone import BASE_LORA, TOWER
from examples.countries.train.base import train_base
from examples.countries.train.base_lora import add_base_lora
from examples.countries.train.stages import Run


def test_base_merged_equals_base_with_the_lora_applied(finished: Run) -> None:
    plain, merged = load_backbones(finished, TOWER)[0], load_backbones(finished, TOWER, BASE_LORA)[0]
    ids = torch.randint(0, 200, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        without = plain.model(input_ids=ids).logits
        parameters = add_base_lora(plain.model, finished.sizes.base.rank, 0)
        torch.testing.assert_close(plain.model(input_ids=ids).logits, without)  # B = 0
        for name, weight in load_file(finished.weights / BASE_LORA).items():
            parameters[name].copy_(weight)
        applied = plain.model(input_ids=ids).logits
        assert (applied - without).abs().max() > 1e-3
        torch.testing.assert_close(merged.model(input_ids=ids).logits, applied, atol=1e-4, rtol=1e-4)


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
