"""Loss and gradients against a single graph, one sample at a time, and who gets gradients at all."""

import dataclasses

import pytest
import torch
from support.release import imported, write_release
from support.tiny import FAMILIES, image
from torch import nn
from torch.nn import functional as F

from comem_ray.model.adapter import attach_adapter
from comem_ray.model.backbone import load_backbone
from comem_ray.model.lora import adapter_enabled
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.reasoner import Prompt, Reasoner
from comem_ray.prompts import END, PlainText
from comem_ray.training.data.samples import Sample
from comem_ray.training.loop import trainable_parameters
from comem_ray.training.objective import Objective


def sample(i: int, items: int, answer: str) -> Sample:
    pairs = [(f"Item {i}.{k}: " + "text " * (k + i), image(10 * i + k, 40 + 8 * k, 44)) for k in range(items)]
    return Sample(str(i), f"Question {i}?", image(100 + i) if i % 3 else None, pairs, answer)


SAMPLES = [
    sample(1, 3, "Sofia."),
    sample(2, 1, "The capital of Bulgaria is Sofia."),
    sample(3, 0, "No"),
    sample(4, 2, "B"),
]


@pytest.fixture(scope="module", params=FAMILIES)
def objective(request, make_config):
    config = make_config(request.param, adapter={"lora_dropout": 0.0}, memory={"batch_tokens": 200})
    backbone = load_backbone(config.backbone)
    adapter = attach_adapter(config.adapter, backbone, trainable=True)
    torch.manual_seed(0)
    for name, parameter in backbone.model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.05)
    return Objective(MemoryEncoder(config, backbone=backbone, adapter=adapter), Reasoner(config, backbone=backbone))


def gradients(objective) -> dict[str, torch.Tensor]:
    result = {}
    for name, parameter in trainable_parameters(objective.encoder.adapter).items():
        result[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        parameter.grad = None
    return result


def close(got: dict, want: dict) -> None:
    scale = max(float(g.abs().max()) for g in want.values())
    for name, gradient in want.items():
        torch.testing.assert_close(got[name], gradient, atol=2e-5 * scale, rtol=2e-3, msg=lambda m, n=name: f"{n}: {m}")


def by_one_graph(objective, s: Sample) -> torch.Tensor:
    """The loss of one sample with encoder and reasoner in a single graph, all logits computed."""
    encoder, reasoner = objective.encoder, objective.reasoner
    memory = encoder.forward([encoder.sequence(*i) for i in s.items]) if s.items else None
    question = Prompt(s.question, s.image, "memory" if s.items else "none", memory=memory)
    answer = encoder.backbone.sequencer.sequence([PlainText(s.answer), END]).ids
    prompt = reasoner.sequence(question)
    batch, embeds = reasoner.inputs([question], [dataclasses.replace(prompt, ids=prompt.ids + answer)])
    logits = encoder.backbone.model.lm_head(encoder.backbone.hidden_states(batch, embeds))
    labels = torch.full_like(batch.input_ids, -100)
    labels[0, -len(answer) :] = torch.tensor(answer)
    return F.cross_entropy(logits[0, :-1].float(), labels[0, 1:], ignore_index=-100)


def test_an_item_of_several_samples_is_encoded_once(objective):
    shared = [dataclasses.replace(SAMPLES[0], item_ids=["a", "b", "c"])]
    turned = SAMPLES[0].items[1], SAMPLES[0].items[0], SAMPLES[3].items[0]
    shared += [dataclasses.replace(SAMPLES[3], items=list(turned), item_ids=["b", "a", "d"])]
    once = objective.backward(shared, 1 / 2)
    together = gradients(objective)
    apart = objective.backward([dataclasses.replace(s, item_ids=[]) for s in shared], 1 / 2)
    close(together, gradients(objective))
    assert once.loss == pytest.approx(apart.loss, rel=1e-5)
    assert once.encoder_tokens < 0.75 * apart.encoder_tokens
    assert once.reasoner_tokens == apart.reasoner_tokens


def test_micro_batch_equals_one_sample_at_a_time_in_one_graph(objective):
    figures = objective.backward(SAMPLES, 1 / 8)
    together = gradients(objective)
    # Without checkpointing a single graph is sound: nothing is recomputed under another adapter state.
    losses = [by_one_graph(objective, s) for s in SAMPLES]
    for loss in losses:
        if loss.requires_grad:
            with adapter_enabled(objective.encoder.adapter.lora):
                (loss / 8).backward()
    close(together, gradients(objective))
    assert figures.loss == pytest.approx(float(sum(losses)), rel=1e-5)
    assert figures.samples == len(SAMPLES)
    assert any(g.abs().max() > 0 for n, g in together.items() if "visual" in n)


def test_gradient_checkpointing_changes_nothing(objective):
    objective.backward(SAMPLES, 1.0)
    plain = gradients(objective)
    model = objective.encoder.backbone.model
    model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        objective.backward(SAMPLES, 1.0)
    finally:
        model.gradient_checkpointing_disable()
    close(gradients(objective), plain)


def test_gradient_checkpointing_runs_the_frozen_pass_over_a_questions_image_once(objective):
    """Without items, all that the vision tower does is for the question's image."""
    model = objective.encoder.backbone.model
    memory = torch.randn(1, 8, objective.encoder.backbone.width, requires_grad=True)
    parts = {"vision": model.model.visual.blocks[0].norm1, "text": model.model.language_model.layers[0].input_layernorm}
    calls: list[str] = []
    hooks = [part.register_forward_pre_hook(lambda *_, name=name: calls.append(name)) for name, part in parts.items()]
    model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        loss = objective._reason([dataclasses.replace(SAMPLES[0], items=SAMPLES[0].items[:1])], [memory])[0]
        loss.backward()
    finally:
        model.gradient_checkpointing_disable()
        for hook in hooks:
            hook.remove()
    assert calls.count("vision") == 1
    assert calls.count("text") == 2  # the memory's gradient goes through the language model, which is recomputed
    assert memory.grad is not None


def test_an_items_image_is_recomputed_with_the_adapter_on(objective):
    """Its gradient is the adapter's: checkpointing recomputes it, the question's image it does not."""
    model, calls = objective.encoder.backbone.model, []
    hook = model.model.visual.blocks[0].norm1.register_forward_pre_hook(lambda *_: calls.append(1))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        objective.backward([SAMPLES[1]], 1.0)
    finally:
        model.gradient_checkpointing_disable()
        hook.remove()
    gradients(objective)
    assert len(calls) == 1 + 2  # the question's image once, the item's twice


def test_the_reasoner_has_none_of_the_adapter(objective):
    """Other LoRA weights, same memory: the reasoner's loss and gradient do not move. And LoRA gets no gradient."""
    memory = torch.randn(2, 8, objective.encoder.backbone.width, requires_grad=True)
    samples = [dataclasses.replace(SAMPLES[3], items=SAMPLES[3].items[:2])]
    lora = {n: p for n, p in trainable_parameters(objective.encoder.adapter).items() if "lora" in n}
    kept = {n: p.detach().clone() for n, p in lora.items()}
    losses, grads = [], []
    for scale in (1.0, 5.0):
        with torch.no_grad():
            for name, parameter in lora.items():
                parameter.copy_(kept[name] * scale)
        loss = objective._reason(samples, [memory])[0]
        grads.append(torch.autograd.grad(loss, memory)[0])
        losses.append(float(loss))
        assert all(p.grad is None for p in lora.values())
    with torch.no_grad():
        for name, parameter in lora.items():
            parameter.copy_(kept[name])
    assert losses[0] == losses[1]
    assert torch.equal(*grads)


def test_only_the_adapter_is_trained(objective):
    objective.backward(SAMPLES[:1], 1.0)
    adapter = {id(p) for p in trainable_parameters(objective.encoder.adapter).values()}
    touched = {n for n, p in objective.encoder.backbone.model.named_parameters() if p.grad is not None}
    assert touched
    assert all(".lora_" in n for n in touched)
    assert all(id(p) in adapter for n, p in objective.encoder.backbone.model.named_parameters() if n in touched)
    gradients(objective)


def test_distillation_pulls_towards_the_rag_pass(objective):
    """The gradient with the switch on minus that with it off is the gradient of the KL alone, by finite difference."""
    with_kl = Objective(objective.encoder, objective.reasoner, distillation=1.0)
    figures = with_kl.backward(SAMPLES[:2], 1.0)
    both = gradients(objective)
    objective.backward(SAMPLES[:2], 1.0)
    plain = gradients(objective)
    assert figures.distillation > 0
    name = "qformer.norm_out.bias"
    direction = both[name] - plain[name]
    parameter = trainable_parameters(objective.encoder.adapter)[name]
    step = 1e-2 / direction.norm()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter.add_(sign * step * direction)
        values.append(with_kl.backward(SAMPLES[:2], 1.0).distillation)
        gradients(objective)
        with torch.no_grad():
            parameter.sub_(sign * step * direction)
    slope = (values[0] - values[1]) / (2 * float(step))
    assert slope == pytest.approx(float((direction**2).sum()), rel=0.05)


def test_an_imported_reasoner_is_not_trained_with(backbones, tmp_path):
    base = backbones["qwen2_vl"]
    write_release(tmp_path / "release", base, torch.float32, model_inf="different")
    _, config = imported(tmp_path / "release", base, tmp_path / "adapter")
    for fields, message in (
        ({"language_model": "auto"}, "set reasoner.language_model to base"),
        ({"language_model": "base", "question_vision": "adapter"}, "training needs reasoner.question_vision: base"),
    ):
        reasoner = config.reasoner.model_copy(update={"question_vision": "base", **fields})
        settings = config.model_copy(update={"reasoner": reasoner})
        encoder = MemoryEncoder(settings)
        with pytest.raises(ValueError, match=message):
            Objective(encoder, Reasoner(settings, backbone=encoder.backbone, adapter=encoder.adapter))
