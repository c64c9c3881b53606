"""The dry run of the paper's configuration: exact counts, sane estimates, without a hub or weights."""

import pytest

from comem_ray.config import load_config
from comem_ray.training.estimate import estimate
from jobs.train import dry_run


@pytest.fixture(scope="module")
def config():
    return load_config("configs/qwen2_5_vl_7b.yaml")


@pytest.fixture(scope="module")
def found(config):
    return estimate(config)


def test_counts_of_the_paper_recipe(found):
    d, kv, f, r = 3584, 512, 18944, 16
    a_layer = 2 * (d + d) + 2 * (d + kv) + 2 * (d + f) + (f + d)  # q, o; k, v; gate, up; down
    assert found.parts["LoRA, language model"] == 28 * r * a_layer
    v, g = 1280, 3420
    a_block = (v + 3 * v) + (v + v) + 2 * (v + g) + (g + v)
    merger = (4 * v + 4 * v) + (4 * v + d)
    assert found.parts["LoRA, vision tower"] == r * (32 * a_block + merger)
    attention, ffn = d * d + 2 * d * d + d * d, 2 * 4 * d * d  # inner width 16 * 224 = d
    projections, norms = 2 * (d * d + d), 4 * 2 * d
    assert found.parts["Q-Former"] == 8 * d + attention + ffn + projections + norms
    assert found.frozen == pytest.approx(8.29e9, rel=0.01)  # as released: 8.29 G parameters


def test_estimates_are_sane(config, found):
    assert 17 < sum(found.memory_gb.values()) < 80  # more than the weights alone, and fits the H100
    assert found.steps == 975
    # METHOD says 0.12 PFLOP a sample at some 400 tokens an item, recomputation and attention included.
    assert 30 < found.tflop_a_sample < 120
    assert 0.3 < found.hours[0.45] < 1.5
    more = estimate(config.model_copy(update={"training": config.training.model_copy(update={"items": 6})}))
    assert more.tflop_a_sample > 1.5 * found.tflop_a_sample
    assert sum(more.memory_gb.values()) > sum(found.memory_gb.values())


def test_dry_run_says_it_in_words(config):
    text = dry_run(config)
    for words in (
        "trainable parameters",
        "179,895,296",
        "memory of a worker",
        "hours at MFU 45%",
        "there is no data yet",
    ):
        assert words in text
