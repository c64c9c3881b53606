"""The loss of stage base: the reasoner's own sequences, the right targets, and the gradients of unpacked prompts."""

import random
from dataclasses import replace
from itertools import chain

import pytest
import torch
from support.training_run import load_backbones
from torch import Tensor
from transformers import AutoTokenizer

from comem_ray.model.reasoner import Prompt, Reasoner
from examples.countries.backbone import TOWER
from examples.countries.train.base_lora import add_base_lora
from examples.countries.train.base_loss import BaseLoss
from examples.countries.train.base_mixture import batch_of
from examples.countries.train.country_samples import CountrySample, SampleSpec
from examples.countries.train.image_cache import view_image
from examples.countries.train.stages import Run
from examples.countries.train.tower import tower_maps
from examples.countries.world.questions import FACTS, NAME_AND_FACTS, answer_sentence


def test_sequences_and_inputs_are_those_of_the_reasoner_on_images(finished: Run) -> None:
    backbone, cached, book = load_backbones(finished, TOWER)
    config, sizes = finished.config(), finished.sizes
    loss = BaseLoss(config, cached, book, sizes.base)
    reasoner, maps = Reasoner(config, backbone=backbone), tower_maps(sizes.vision.maps)
    image_of = lambda entry: view_image(maps[entry.map], entry)  # noqa: E731
    samples = finished.sampler(cached).draw(random.Random(0), SampleSpec(2, 0.5, 0.0), 3)
    for mode in ("rag", "memory"):
        prompts = loss.prompts(mode, samples, torch.Generator().manual_seed(0))
        real = [
            Prompt(
                p.text, image_of(p.image), p.mode, items=[(text, image_of(i)) for text, i in p.items], memory=p.memory
            )
            for p in prompts
        ]
        ours, theirs = [loss.reasoner.sequence(p) for p in prompts], [reasoner.sequence(p) for p in real]
        assert [(s.ids, s.grids, s.memory) for s in ours] == [(s.ids, s.grids, s.memory) for s in theirs]
        (batch, embeds), (real_batch, real_embeds) = loss.reasoner.inputs(prompts, ours), reasoner.inputs(real, theirs)
        torch.testing.assert_close(embeds, real_embeds, atol=0.15, rtol=0.02)  # the cache is bf16, norms are big
        assert torch.equal(cached.positions(batch), backbone.positions(real_batch))


def test_answers_point_at_the_name_and_at_the_fact(finished: Run) -> None:
    _, cached, book = load_backbones(finished, TOWER)
    loss = BaseLoss(finished.config(), cached, book, finished.sizes.base)
    tokenizer = AutoTokenizer.from_pretrained(finished.backbone(TOWER))
    for number in range(6):
        for sample in chain(*batch_of(number, finished.sampler(cached), finished.sizes.base)[1]):
            answer = loss.answer_tokens(sample)
            assert tokenizer.decode(answer.ids[answer.name :]).startswith(f" {sample.country.name}")
            assert tokenizer.decode(answer.ids[: answer.fact]) == sample.prefix_of_fact()
            several = len(sample.items) > 1
            assert answer.weights[answer.name] == (6.0 if several else max(answer.weights[answer.name], 1))


def test_image_tokens_predict_the_names_and_a_drill_has_all_facts(finished: Run) -> None:
    _, cached, book = load_backbones(finished, TOWER)
    loss, sampler = BaseLoss(finished.config(), cached, book, finished.sizes.base), finished.sampler(cached)
    tokenizer, image = AutoTokenizer.from_pretrained(finished.backbone(TOWER)), cached.sequencer.image_token_id
    for kind, items, count in (("memory", 3, 4), ("rag", 2, 4), ("pick", 3, 4), ("read", 1, 1)):
        group = sampler.draw(random.Random(kind), SampleSpec(items, 0.5, 0.0), count)
        (batch,) = loss.pack(kind, [group], 0)
        indices, ids, weights = batch.targets(0.5)
        length = sum(len(answer.ids) for answer in batch.answers)
        text = tokenizer.decode(ids[:length])
        for number, (sample, own) in enumerate(zip(group, batch.image_indices, strict=True)):
            assert len(own) == (0 if kind == "read" else 4)  # of the 12 tokens of the question's image
            assert all(batch.packed.sequence.ids[i - batch.packed.sequence.memory] == image for i in own)
            assert all(batch.packed.branches[i] == number for i in own)  # its own image, not that of an item
            facts = NAME_AND_FACTS if kind == "read" else [sample.fact]
            assert all(answer_sentence(sample.country, f) in text for f in facts if f in (*FACTS, sample.fact))
        names = [answer.ids[answer.name] for answer in batch.answers for _ in range(4)]
        assert ids[length:] == (names if kind != "read" else [])
        assert sum(weights[length:]) == pytest.approx(0.5 * 6 * count if items > 1 else 0)
        whole = [None] * batch.packed.sequence.memory + batch.packed.sequence.ids
        assert [whole[i + 1] for i in indices[:length]] == ids[:length]


@pytest.mark.parametrize("kind", ["rag", "memory", "pick", "read"])
def test_packed_questions_have_the_gradients_of_each_on_its_own(finished: Run, kind: str) -> None:
    backbone, cached, book = load_backbones(finished, TOWER)
    sizes = replace(finished.sizes.base, noise=(0.0, 0.0))
    parameters = add_base_lora(backbone.model, sizes.rank, 0)
    loss = BaseLoss(finished.config(), cached, book, sizes)
    sampler, several = finished.sampler(cached), kind != "read"
    specs = [(SampleSpec(k, 0.5, 0.3), 4) if several else (SampleSpec(1, 0.5, 0.3), 1) for k in (1, 3, 2)]
    groups = [sampler.draw(random.Random(n), spec, count) for n, (spec, count) in enumerate(specs)]

    def gradients(batch: list[list[CountrySample]]) -> tuple[dict[str, float], dict[str, Tensor]]:
        backbone.model.zero_grad()
        metrics = loss.backward(kind, loss.pack(kind, batch, 0))
        return metrics, {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}

    for p in parameters.values():
        torch.nn.init.normal_(p, std=0.05)  # a LoRA with an effect, so that A has gradients too
    (together, packed), (apart, single) = gradients(groups), gradients([[s] for group in groups for s in group])
    assert together["loss"] == pytest.approx(apart["loss"], rel=1e-4)
    share = {"rag": 0.8, "memory": 0.8, "pick": 0.9, "read": 1.01}[kind]  # a question of `read` has nothing to share
    assert together["tokens"] < share * apart["tokens"]
    assert packed.keys() == single.keys() == parameters.keys()
    for name, gradient in single.items():
        torch.testing.assert_close(packed[name], gradient, atol=1e-5, rtol=1e-3)
