"""The initial Q-Former: keys that tell a slot's tokens from others, queries that attend to them and to nothing else."""

import random

import torch

from comem_ray.model.qformer import QFormer
from examples.countries.train.notes import FADING, SLOTS
from examples.countries.train.qformer_init import (
    SHARPNESS,
    attention_targets,
    find_facts,
    orthogonal_rows,
    ridge_regression,
    set_attention,
    slot_regressions,
)
from examples.countries.world.invented import coastlines, invented_country
from examples.countries.world.lexicon import lexicon
from examples.countries.world.sentences import opening_in_english

WIDTH = 192


def tokenize(text: str) -> list[int]:
    """One token per character; a space belongs to the next one."""
    return [ord(c) for c in text.replace(" ", "")]


def planted() -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """States (noise, and a direction of its own for ten tokens per slot), those tokens' indices, attention targets."""
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(1000, WIDTH, generator=draw) * torch.linspace(0.3, 2, WIDTH)
    indices = list(torch.arange(10 * SLOTS).view(SLOTS, 10))
    for own in indices:
        states[own] += 2 * torch.randn(WIDTH, generator=draw)
    targets = torch.zeros(len(states), SLOTS)
    for slot, own in enumerate(indices):
        targets[own, slot] = 1
    return states, indices, targets


def test_the_facts_of_the_text_are_found():
    country = invented_country(random.Random(1), lexicon(), coastlines("test", 1)[0], "x")
    text = opening_in_english(country)
    facts = find_facts(country, tokenize(text), tokenize)
    texts = ["".join(chr(tokenize(text)[i]) for phrase in slot for i in phrase) for slot in facts]
    name, capital = country.name.replace(" ", ""), country.capital.replace(" ", "")
    assert texts[:3] == ["", name[0], name[1:]]
    assert texts[3:6] == [capital[0], capital[1], capital[2:]]
    assert texts[6] == country.currency.word.replace(" ", "")
    assert texts[7] == (country.languages[0] + country.area).replace(" ", "")
    assert find_facts(country, tokenize("nothing"), tokenize) == [[]] * SLOTS


def test_regressions_tell_the_slots_apart():
    states, indices, targets = planted()
    scores = states @ slot_regressions(states, targets).T
    for slot, own in enumerate(indices):
        apart = scores[own, slot].mean() - scores[targets[:, slot] == 0, slot].mean()
        torch.testing.assert_close(apart, torch.tensor(1.0), atol=1e-4, rtol=0)
        assert scores[own, slot].min() > scores[10 * SLOTS :, slot].max()


def test_targets_fade_along_a_word_as_attention_should():
    targets = attention_targets([[], [[4, 5, 6]], [[7], [8, 9]]], image_indices=[1, 2], tokens=10)
    assert targets[:, 0].tolist() == [0, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    attention = (SHARPNESS * targets).exp()
    torch.testing.assert_close(attention[5, 1] / attention[4, 1], torch.tensor(FADING))
    torch.testing.assert_close(attention[6, 1] / attention[4, 1], torch.tensor(FADING**2))
    torch.testing.assert_close(attention[9, 2] / attention[7, 2], torch.tensor(FADING))
    assert targets[7, 2] == targets[8, 2] == 1


def test_a_slot_without_tokens_gets_a_row_of_zeros():
    states, _, targets = planted()
    targets[:, -1] = 0
    rows = slot_regressions(states, targets)
    assert rows[-1].abs().max() == 0
    assert rows.isfinite().all()


def test_every_slot_attends_to_its_tokens_and_to_the_image():
    states, indices, targets = planted()
    rows = slot_regressions(states, targets)
    queries = orthogonal_rows(rows, seed=0)
    torch.testing.assert_close(queries @ queries.T, torch.eye(SLOTS), atol=1e-5, rtol=0)
    assert (queries @ rows.T).abs().max() < 1e-4
    torch.manual_seed(0)
    qformer = QFormer(WIDTH, heads=4)
    with torch.no_grad():
        set_attention(qformer, rows, queries, image_heads=1)
        q = qformer._split(qformer.to_q(qformer.norm_h(qformer.queries[None])))[0]
        k = qformer._split(qformer.to_kv(states[None]))[0, :4]
    weights = (q @ k.transpose(-1, -2) * qformer.head_width**-0.5).softmax(-1)  # heads, slots, tokens
    for slot, own in enumerate(indices):
        assert (weights[:3, slot, own].sum(-1) > 0.9).all()
        assert weights[3, slot, indices[0]].sum() > 0.9


def test_ridge_regressions_have_unit_outputs():
    draw = torch.Generator().manual_seed(1)
    inputs, true = torch.randn(500, 20, generator=draw), torch.randn(6, 20, generator=draw)
    regression = ridge_regression(inputs, inputs @ true.T, torch.ones(500))
    outputs = inputs @ regression.T
    torch.testing.assert_close(outputs.norm(dim=-1).mean(), torch.tensor(1.0))
    assert torch.cosine_similarity(outputs, inputs @ true.T, dim=-1).min() > 0.99
