"""Compiled layers compute what the layers as they are do, under the same names."""

import logging
import shutil

import pytest
import torch
from support.training_run import load_backbones
from torch import Tensor

from comem_ray.model.backbone import load_backbone
from examples.countries.backbone import TOWER
from examples.countries.train.base_lora import add_base_lora
from examples.countries.train.base_loss import BaseLoss
from examples.countries.train.base_mixture import batch_of
from examples.countries.train.compilation import compile_layers
from examples.countries.train.stages import Run

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")


def compiled_modules(model: torch.nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if module._compiled_call_impl is not None}


def test_without_a_compiler_nothing_is_compiled_and_a_warning_says_so(
    make_config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    model = load_backbone(make_config().backbone).model
    with caplog.at_level(logging.WARNING):
        compile_layers(model)
    assert compiled_modules(model) == set()
    assert "no C++ compiler" in caplog.text


@needs_compiler
def test_the_layers_of_the_language_model_are_compiled_in_place(make_config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    model = load_backbone(make_config().backbone).model
    weights = {name: p.data_ptr() for name, p in model.named_parameters()}
    compile_layers(model)
    assert compiled_modules(model) == {f"model.language_model.layers.{n}" for n in range(3)}
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == weights


@pytest.mark.slow  # compiling takes half a minute
@needs_compiler
def test_compiled_layers_have_the_loss_and_the_gradients_of_the_layers_as_they_are(finished: Run) -> None:
    backbone, cached, book = load_backbones(finished, TOWER)
    sizes = finished.sizes.base
    parameters = add_base_lora(backbone.model, sizes.rank, 0)
    loss = BaseLoss(finished.config(), cached, book, sizes)
    batches = [batch_of(number, finished.sampler(cached), sizes) for number in range(8)]  # of several lengths

    def losses_and_gradients() -> tuple[list[float], dict[str, Tensor]]:
        losses = [loss.backward(kind, loss.pack(kind, groups, 0))["loss"] for kind, groups in batches]
        gradients = {n: p.grad for n, p in parameters.items() if p.grad is not None}
        for p in parameters.values():
            p.grad = None
        return losses, gradients

    (losses, gradients), names = losses_and_gradients(), [n for n, _ in backbone.model.named_parameters()]
    compile_layers(backbone.model)
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters["stats"]
    counters.clear()
    compiled_losses, compiled_gradients = losses_and_gradients()
    assert counters["unique_graphs"] > 0
    assert [n for n, _ in backbone.model.named_parameters()] == names
    assert compiled_losses == pytest.approx(losses, rel=1e-5)
    assert compiled_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(compiled_gradients[name], gradient, rtol=1e-4, atol=1e-5)
