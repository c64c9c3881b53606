"""Cached tokens are those of the vision tower, and stand in a prompt where the image would."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from comem_ray.model.backbone import Backbone, load_backbone
from comem_ray.prompts import ControlText, ImagePart, PlainText, PromptPart
from examples.countries.train.image_cache import (
    GRID,
    CachedImage,
    cache_image_tokens,
    view_image,
    with_cached_images,
)
from examples.countries.world.outlines import Map, invented_land

MAPS, VIEWS = [Map(invented_land(n)) for n in range(3)], 2
IMAGES = [CachedImage(m, v) for m in range(len(MAPS)) for v in range(VIEWS)]
PIXELS = {"min": 112 * 84, "max": 112 * 84}
BFLOAT16 = {"atol": 1e-2, "rtol": 1e-2}  # the precision of the cache


@pytest.fixture(scope="module")
def backbone(make_config) -> Backbone:
    return load_backbone(make_config(backbone={"item_pixels": PIXELS, "question_pixels": PIXELS}).backbone)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache") / "tokens.safetensors"


@pytest.fixture(scope="module")
def tokens(backbone: Backbone, path: Path) -> Tensor:
    return cache_image_tokens(backbone, MAPS, VIEWS, path)


@torch.no_grad()
def embeds(backbone: Backbone, parts: list[PromptPart]) -> Tensor:
    batch = backbone.sequencer.batch([backbone.sequencer.sequence(parts)], padding="right")
    return backbone.embed(batch, backbone.image_features(batch))


def test_cached_tokens_are_those_of_the_tower_on_each_image_alone(backbone: Backbone, tokens: Tensor) -> None:
    assert tokens.shape == (len(MAPS), VIEWS, GRID[1] * GRID[2] // 4, backbone.width)
    assert tokens.dtype == torch.bfloat16
    for image in IMAGES:
        alone = embeds(backbone, [ImagePart(view_image(MAPS[image.map], image), "item")])[0]
        torch.testing.assert_close(tokens[image.map, image.view].float(), alone, **BFLOAT16)


def test_a_second_call_reads_the_file(backbone: Backbone, tokens: Tensor, path: Path) -> None:
    before = path.stat().st_mtime_ns
    assert torch.equal(load_file(path)["tokens"], tokens)
    assert torch.equal(cache_image_tokens(backbone, [], 0, path), tokens)  # there is nothing that it could draw
    assert path.stat().st_mtime_ns == before


def test_an_image_follows_from_its_map_and_view() -> None:
    drawn = [view_image(MAPS[image.map], image).tobytes() for image in IMAGES]
    assert drawn == [view_image(MAPS[image.map], image).tobytes() for image in IMAGES]
    assert len(set(drawn)) == len(IMAGES)


def test_a_prompt_with_a_cached_image_is_the_prompt_with_the_image(backbone: Backbone, tokens: Tensor) -> None:
    cached = with_cached_images(backbone, tokens)

    def prompt(first: object, second: object) -> list[PromptPart]:
        images = ImagePart(first, "item"), ImagePart(second, "question")
        return [ControlText("<|im_start|>"), images[0], PlainText("A map, then"), images[1], PlainText("a question")]

    chosen = IMAGES[3], IMAGES[0]
    real = prompt(*(view_image(MAPS[image.map], image) for image in chosen))
    ours, theirs = cached.sequencer.sequence(prompt(*chosen)), backbone.sequencer.sequence(real)
    assert (ours.ids, ours.grids) == (theirs.ids, theirs.grids)
    torch.testing.assert_close(embeds(cached, prompt(*chosen)), embeds(backbone, real), **BFLOAT16)
    assert torch.equal(cached.sequencer.tokens(chosen), torch.stack([tokens[1, 1], tokens[0, 0]]))
