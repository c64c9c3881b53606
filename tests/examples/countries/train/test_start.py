"""The warm-up's start: keys that find a slot's tokens, queries that ask for them and for nothing else."""

import random

import torch

from comem_ray.model.qformer import QFormer
from examples.countries.train.notes import FADING, SLOTS
from examples.countries.train.start import SHARPNESS, _aim, _aims, _fitted, _unseen_by, discriminants, fact_places
from examples.countries.world.invented import coasts, invented_country, lexicon
from examples.countries.world.sentences import opening_in_english

WIDTH = 192


def ids(text: str) -> list[int]:
    """A token a character, but for spaces, which belong to what follows."""
    return [ord(c) for c in text.replace(" ", "")]


def planted() -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Noise of unequal strengths; ten tokens of each slot have a direction of their own on top. And the aims."""
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(1000, WIDTH, generator=draw) * torch.linspace(0.3, 2, WIDTH)
    places = list(torch.arange(10 * SLOTS).view(SLOTS, 10))
    for place in places:
        states[place] += 2 * torch.randn(WIDTH, generator=draw)
    aims = torch.zeros(len(states), SLOTS)
    for slot, place in enumerate(places):
        aims[place, slot] = 1
    return states, places, aims


def test_places_hold_the_facts_of_the_text():
    country = invented_country(random.Random(1), lexicon(), coasts("test", 1)[0], "x")
    text = opening_in_english(country)
    found = fact_places(country, ids(text), ids)
    said = ["".join(chr(ids(text)[i]) for phrase in slot for i in phrase) for slot in found]
    name, capital = country.name.replace(" ", ""), country.capital.replace(" ", "")
    assert said[:3] == ["", name[0], name[1:]]
    assert said[3:6] == [capital[0], capital[1], capital[2:]]
    assert said[6] == country.currency.word.replace(" ", "")
    assert said[7] == (country.languages[0] + country.area).replace(" ", "")
    assert fact_places(country, ids("nothing"), ids) == [[]] * SLOTS


def test_discriminants_tell_the_slots_apart():
    states, places, aims = planted()
    scores = states @ discriminants(states, aims).T
    for slot, place in enumerate(places):
        apart = scores[place, slot].mean() - scores[aims[:, slot] == 0, slot].mean()
        torch.testing.assert_close(apart, torch.tensor(1.0), atol=1e-4, rtol=0)
        assert scores[place, slot].min() > scores[10 * SLOTS :, slot].max()


def test_aims_fade_along_a_word_as_attention_should():
    aims = _aims([[], [[4, 5, 6]], [[7], [8, 9]]], of_image=[1, 2], tokens=10)
    assert aims[:, 0].tolist() == [0, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    attention = (SHARPNESS * aims).exp()
    torch.testing.assert_close(attention[5, 1] / attention[4, 1], torch.tensor(FADING))
    torch.testing.assert_close(attention[6, 1] / attention[4, 1], torch.tensor(FADING**2))
    torch.testing.assert_close(attention[9, 2] / attention[7, 2], torch.tensor(FADING))
    assert aims[7, 2] == aims[8, 2] == 1


def test_a_slot_without_tokens_is_found_nowhere():
    states, _, aims = planted()
    aims[:, -1] = 0
    rows = discriminants(states, aims)
    assert rows[-1].abs().max() == 0
    assert rows.isfinite().all()


def test_every_slot_attends_to_its_tokens_and_to_the_image():
    states, places, aims = planted()
    rows = discriminants(states, aims)
    queries = _unseen_by(rows, seed=0)
    torch.testing.assert_close(queries @ queries.T, torch.eye(SLOTS), atol=1e-5, rtol=0)
    assert (queries @ rows.T).abs().max() < 1e-4
    torch.manual_seed(0)
    qformer = QFormer(WIDTH, heads=4)
    with torch.no_grad():
        _aim(qformer, rows, queries, image_heads=1)
        q = qformer._split(qformer.to_q(qformer.norm_h(qformer.queries[None])))[0]
        k = qformer._split(qformer.to_kv(states[None]))[0, :4]
    weights = (q @ k.transpose(-1, -2) * qformer.head_width**-0.5).softmax(-1)  # heads, slots, tokens
    for slot, place in enumerate(places):
        assert (weights[:3, slot, place].sum(-1) > 0.9).all()
        assert weights[3, slot, places[0]].sum() > 0.9


def test_fitted_maps_are_linear_regressions_of_unit_outputs():
    draw = torch.Generator().manual_seed(1)
    inputs, true = torch.randn(500, 20, generator=draw), torch.randn(6, 20, generator=draw)
    fitted = _fitted(inputs, inputs @ true.T, torch.ones(500))
    outputs = inputs @ fitted.T
    torch.testing.assert_close(outputs.norm(dim=-1).mean(), torch.tensor(1.0))
    assert torch.cosine_similarity(outputs, inputs @ true.T, dim=-1).min() > 0.99
