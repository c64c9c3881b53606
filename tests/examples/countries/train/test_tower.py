"""The tower at a tiny size: it learns, goes on where it stopped, and stays a stock module after the fold."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from comem_ray.artifacts import ArtifactError
from examples.countries.backbone import TOWER
from examples.countries.train.clip_data import one_view_each
from examples.countries.train.discriminant import leading_directions
from examples.countries.train.stage_loop import Plan
from examples.countries.train.tower import (
    GAIN,
    HEIGHT,
    TOKENS,
    WIDTH,
    WORD_NORM,
    VisionSizes,
    image_subspace,
    image_tokens,
    mean_tokens,
    nearest,
    tower_maps,
    train_tower,
)
from examples.countries.world.countries import training_countries

TINY = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 64}
SIZES = VisionSizes(
    plan=Plan(steps=6, learning_rate=3e-3, checkpoint_every=2),
    maps=20,
    batch=16,
    lookalikes=0.5,
    lda_maps=40,
    lda_views=3,
    directions=8,
    validation=12,
)


def tower() -> Qwen2_5_VisionTransformerPretrainedModel:
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(vision_config={**TINY, "window_size": 112, "fullatt_block_indexes": [0]})
    return Qwen2_5_VisionTransformerPretrainedModel(config.vision_config)


@pytest.fixture(scope="module")
def embeddings() -> Tensor:
    return torch.randn(300, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def trained(embeddings: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tower")
    metrics = train_tower(tower(), embeddings, folder, SIZES)
    assert metrics["maps"] == 12
    assert 0 <= metrics["views@1"] <= metrics["views@3"] <= 1
    assert 0 <= metrics["items@1"] <= metrics["items_beats_two"] <= 1
    return folder


def test_stopped_and_resumed_equals_uninterrupted(trained: Path, embeddings: Tensor, tmp_path: Path) -> None:
    for stop in (2, 4, None):  # before and after the look-alikes come in
        train_tower(tower(), embeddings, tmp_path, SIZES, stop_after=stop)
    whole, resumed = load_file(trained / TOWER), load_file(tmp_path / TOWER)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_of_another_plan_is_refused(trained: Path, embeddings: Tensor) -> None:
    with pytest.raises(ArtifactError, match="another run"):
        train_tower(tower(), embeddings, trained, replace(SIZES, batch=8))


def test_tokens_have_the_gain_and_lie_in_the_leading_directions_of_the_words(trained: Path, embeddings: Tensor) -> None:
    visual = tower()
    visual.load_state_dict(load_file(trained / TOWER))
    images = one_view_each(tower_maps(0)[:30], (WIDTH, HEIGHT), 5)
    with torch.no_grad():
        tokens = image_tokens(visual, images)
    assert tokens.shape == (30, TOKENS, 64)
    words = leading_directions(embeddings, SIZES.directions)
    outside = tokens - tokens @ words @ words.T
    assert outside.norm() < 0.02 * tokens.norm()
    subspace = image_subspace(visual, SIZES.directions)
    torch.testing.assert_close(subspace @ subspace.T, words @ words.T, atol=0.02, rtol=0)
    assert 0.5 < mean_tokens(visual, images).norm(dim=-1).mean() / (GAIN * WORD_NORM) < 2


def test_nearest_is_brute_force_without_itself() -> None:
    vectors = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=-1)
    scores = unit @ unit.T
    scores.fill_diagonal_(-9)
    assert torch.equal(nearest(vectors, 3), scores.argsort(1, descending=True)[:, :3])


def test_the_maps_of_training_countries_come_first() -> None:
    maps = tower_maps(3)
    assert len(maps) == len(training_countries()) + 3
