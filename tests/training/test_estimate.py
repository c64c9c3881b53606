"""The dry run of the paper's configuration: exact counts, sane estimates, without a hub or weights."""

import pytest

from comem_ray.config import load_config
from comem_ray.training.estimate import estimate
from jobs.train import dry_run


@pytest.fixture(scope="module")
def config():
    return load_config("configs/qwen2_5_vl_7b.yaml")


@pytest.fixture(scope="module")
def result(config):
    return estimate(config)


def test_counts_of_the_paper_recipe(result):
    d, kv, f, r = 3584, 512, 18944, 16
    per_layer = 2 * (d + d) + 2 * (d + kv) + 2 * (d + f) + (f + d)  # q, o; k, v; gate, up; down
    assert result.parts["LoRA, language model"] == 28 * r * per_layer
    v, g = 1280, 3420
    per_block = (v + 3 * v) + (v + v) + 2 * (v + g) + (g + v)
    merger = (4 * v + 4 * v) + (4 * v + d)
    assert result.parts["LoRA, vision tower"] == r * (32 * per_block + merger)
    attention, ffn = d * d + 2 * d * d + d * d, 2 * 4 * d * d  # inner width 16 * 224 = d
    projections, norms = 2 * (d * d + d), 4 * 2 * d
    assert result.parts["Q-Former"] == 8 * d + attention + ffn + projections + norms
    assert result.frozen == pytest.approx(8.29e9, rel=0.01)  # as released: 8.29 G parameters


def test_estimates_are_sane(config, result):
    assert 17 < sum(result.memory_gb.values()) < 80  # more than the weights alone, and fits the H100
    assert result.steps == 975
    # 0.12 PFLOP per sample at some 400 tokens per item were estimated with recomputation and attention.
    assert 30 < result.tflop_per_sample < 120
    assert 0.3 < result.hours[0.45] < 1.5
    more = estimate(config.model_copy(update={"training": config.training.model_copy(update={"items": 6})}))
    assert more.tflop_per_sample > 1.5 * result.tflop_per_sample
    assert sum(more.memory_gb.values()) > sum(result.memory_gb.values())


def test_the_dry_run_prints_the_estimate(config):
    text = dry_run(config)
    for words in (
        "trainable parameters",
        "179,895,296",
        "memory per worker",
        "hours at MFU 45%",
        "training.data is empty",
    ):
        assert words in text
