import re

import numpy as np
import torch

from examples.countries.train.clip_data import GROUP, ViewPairs, text_pairs, training_maps
from examples.countries.world.countries import held_out_countries, training_countries


def test_batches_follow_from_the_seed_alone() -> None:
    maps, real = training_maps(20, seed=1), len(training_countries())
    pairs = ViewPairs(maps, real, (84, 63), 16, 3, seed=5)
    again = ViewPairs(training_maps(20, seed=1), real, (84, 63), 16, 3, seed=5)
    assert pairs[2].shape == (2, 16, 3, 63, 84)
    assert torch.equal(pairs[2], again[2])
    assert not torch.equal(pairs[2], pairs[1])


def test_lookalikes_stand_together_and_nobody_twice() -> None:
    maps = training_maps(400, seed=1)
    neighbours = np.stack([(n + 1 + np.arange(32)) % len(maps) for n in range(len(maps))])
    pairs = ViewPairs(maps, len(training_countries()), (84, 63), 64, 40, seed=5, neighbours=neighbours)
    close = 0
    for n in range(40):
        chosen = pairs._choose(np.random.default_rng([5, n]))
        assert len(set(chosen)) == len(chosen) <= 64
        close += sum((b - chosen[0]) % len(maps) <= 32 for b in chosen[1:GROUP]) == GROUP - 1
    assert 20 <= close <= 38  # a quarter of the batches stays without look-alikes


def test_texts_name_no_held_out_country() -> None:
    names = {c.name for c in held_out_countries()}
    for n in range(20):
        questions, texts = text_pairs(n, 64, seed=0)
        assert len(questions) == len(texts) == 64
        assert not any(text.startswith(f"{name}:") for text in texts for name in names)
        bordering = [match[1] for text in texts if (match := re.search(r"It borders (.*?)\.", text))]
        assert not any(name in re.split(", | and ", line) for line in bordering for name in names)
