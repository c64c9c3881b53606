"""Samples follow from their seed, and every answer stands in the right item's text."""

import random
from typing import Any

import pytest
import torch

from examples.countries.train.country_samples import CountrySample, CountrySampler, SampleSpec
from examples.countries.world.invented import coastlines
from examples.countries.world.lexicon import lexicon
from examples.countries.world.outlines import Map
from examples.countries.world.questions import NAME_AND_FACTS, answer_text

MAPS, VIEWS = 8, 3
NEIGHBOURS = torch.tensor([[(m + 1) % MAPS, (m + 2) % MAPS, (m + 3) % MAPS] for m in range(MAPS)])
SPEC = SampleSpec(items=3, lookalikes=0.5, first=0.3)


@pytest.fixture(scope="module")
def sampler() -> CountrySampler:
    maps = [Map(coast) for coast in coastlines("test", MAPS)]
    return CountrySampler(lexicon(), maps, VIEWS, NEIGHBOURS)


@pytest.fixture(scope="module")
def samples(sampler: CountrySampler) -> list[CountrySample]:
    rng = random.Random(0)
    return [s for _ in range(60) for s in sampler.draw(rng, SPEC, 2)]


def content(sample: CountrySample) -> tuple[Any, ...]:
    """What a sample is made of, without the coasts (arrays)."""
    return sample.texts, sample.images, sample.right, sample.fact, sample.image, sample.question, sample.answer


def test_what_is_drawn_depends_on_the_seed_alone(sampler: CountrySampler) -> None:
    first = [content(s) for s in sampler.draw(random.Random("a"), SPEC, 4)]
    random.seed(99)
    sampler.draw(random.Random("b"), SPEC, 4)
    assert [content(s) for s in sampler.draw(random.Random("a"), SPEC, 4)] == first
    assert [content(s) for s in sampler.draw(random.Random("b"), SPEC, 4)] != first
    items = [sampler.draw_item(random.Random(seed)) for seed in ("a", "a", "b")]
    assert items[0][1:] == items[1][1:]
    assert items[0].text != items[2].text


def test_the_answer_stands_in_the_right_items_text_and_in_no_question(samples: list[CountrySample]) -> None:
    assert {s.fact for s in samples} == set(NAME_AND_FACTS)
    for sample in samples:
        answer = answer_text(sample.country, sample.fact)
        assert answer in sample.items[sample.right][0]
        assert answer in sample.answer
        assert answer not in sample.question


def test_prefixes_are_the_answer_up_to_the_name_and_up_to_the_fact(samples: list[CountrySample]) -> None:
    for sample in samples:
        assert sample.answer.startswith(f"{sample.prefix_of_name()} {sample.country.name}")
        assert sample.answer == f"{sample.prefix_of_fact()} {answer_text(sample.country, sample.fact)}."


def test_a_question_shows_another_view_than_its_item(samples: list[CountrySample]) -> None:
    for sample in samples:
        item = sample.images[sample.right]
        assert sample.image.map == item.map
        assert sample.image.view != item.view
        assert 0 <= sample.image.view < VIEWS


def test_samples_of_one_draw_share_their_items_which_have_different_maps(sampler: CountrySampler) -> None:
    first, *others = sampler.draw(random.Random(1), SPEC, 5)
    assert all((s.texts, s.images) == (first.texts, first.images) for s in others)
    assert len({image.map for image in first.images}) == SPEC.items


def test_the_right_item_is_in_front_as_often_as_the_specification_says(sampler: CountrySampler) -> None:
    def positions(first: float) -> list[int]:
        rng, spec = random.Random(2), SampleSpec(items=3, lookalikes=0.5, first=first)
        return [sampler.draw(rng, spec)[0].right for _ in range(300)]

    assert set(positions(1.0)) == {0}
    anywhere = positions(0.0)
    assert all(anywhere.count(n) / 300 == pytest.approx(1 / 3, abs=0.1) for n in range(3))


def test_lookalikes_are_neighbours_of_one_of_the_items(sampler: CountrySampler) -> None:
    def all_near_one(sample: CountrySample) -> bool:
        maps = {image.map for image in sample.images}
        return any(maps - {m} <= set(NEIGHBOURS[m].tolist()) for m in maps)

    rng = random.Random(3)
    near = [all_near_one(sampler.draw(rng, SampleSpec(3, chance, 0.0))[0]) for chance in [1.0] * 50 + [0.0] * 50]
    assert all(near[:50])
    assert not all(near[50:])


def test_a_text_begins_with_the_name_of_its_country(sampler: CountrySampler) -> None:
    rng = random.Random(4)
    for _ in range(20):
        country, text, image = sampler.draw_item(rng)
        assert text.startswith(f"{country.name}: ")
        assert all(answer_text(country, fact) in text for fact in NAME_AND_FACTS)
        assert 0 <= image.map < MAPS
        assert 0 <= image.view < VIEWS
