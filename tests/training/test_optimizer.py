"""AdamW on float32 masters, against torch's own and against its schedule."""

import pytest
import torch
from torch import nn

from comem_ray.config import TrainingConfig
from comem_ray.training.optimizer import MasterAdamW, schedule


def config(**fields) -> TrainingConfig:
    return TrainingConfig(data="none", **{"learning_rate": 1e-2, "weight_decay": 0.1, "warmup": 0.0, **fields})


def parameters() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {n: nn.Parameter(torch.randn(*s, generator=generator)) for n, s in {"w": (4, 3), "b": (3,)}.items()}


def give_gradients(named: dict[str, nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in named.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_steps_are_those_of_torch_without_decay_of_vectors():
    ours, theirs = parameters(), parameters()
    optimizer = MasterAdamW(ours, config(clip_norm=1e9), steps=10)
    groups = [{"params": [theirs["w"]], "weight_decay": 0.1}, {"params": [theirs["b"]], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=1e-2)
    for step in range(5):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimizer.collect()
        _, rate = optimizer.step(step)
        for group in reference.param_groups:
            group["lr"] = rate
        reference.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])


def test_gradients_of_micro_batches_add_up_and_leave_the_parameters():
    named = parameters()
    optimizer = MasterAdamW(named, config(), steps=1)
    total = {name: torch.zeros_like(p) for name, p in named.items()}
    for seed in range(3):
        give_gradients(named, seed)
        for name, parameter in named.items():
            total[name] += parameter.grad
        optimizer.collect()
    assert all(p.grad is None for p in named.values())
    for gradient, expected in zip(optimizer.gradients(), total.values(), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_a_missing_gradient_counts_as_zeros():
    optimizer = MasterAdamW(parameters(), config(), steps=1)
    assert [float(g.abs().sum()) for g in optimizer.gradients()] == [0, 0]


def test_small_updates_of_bfloat16_parameters_are_not_lost():
    named = {"w": nn.Parameter(torch.full((2, 2), 256.0, dtype=torch.bfloat16))}
    optimizer = MasterAdamW(named, config(weight_decay=0.0), steps=10_000)
    for step in range(300):  # 300 steps of 0.01, each far below the spacing of 2 that bfloat16 has at 256
        named["w"].grad = torch.ones_like(named["w"])
        optimizer.collect()
        optimizer.step(step)
    assert named["w"][0, 0].item() < 256


def test_the_norm_is_that_before_clipping():
    named = {"w": nn.Parameter(torch.zeros(2, 2))}
    optimizer = MasterAdamW(named, config(clip_norm=1.0), steps=2)
    named["w"].grad = torch.full((2, 2), 5.0)
    optimizer.collect()
    norm, rate = optimizer.step(0)
    assert norm == pytest.approx(10.0)
    assert rate == pytest.approx(1e-2)


def test_a_restored_optimizer_goes_on_as_the_first():
    first = parameters()
    optimizer = MasterAdamW(first, config(), steps=10)
    give_gradients(first, 1)
    optimizer.collect()
    optimizer.step(0)
    second = {name: nn.Parameter(torch.zeros_like(p)) for name, p in first.items()}
    restored = MasterAdamW(second, config(), steps=10)
    restored.restore({key: value.clone() for key, value in optimizer.state().items()})  # as read from a file
    for named, each in ((first, optimizer), (second, restored)):
        give_gradients(named, 2)
        each.collect()
        each.step(1)
    for name in first:
        assert torch.equal(first[name], second[name])


def test_the_schedule_rises_then_falls_to_zero():
    factors = [schedule(s, 100, 0.03) for s in range(100)]
    assert factors[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1], abs=1e-3)
    assert factors[51] == pytest.approx(0.5, abs=0.02)
    assert 0 < factors[99] < 0.001
