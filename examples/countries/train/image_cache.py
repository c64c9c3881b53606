"""A cache of image tokens: the tower is frozen once it is trained, so each image goes through it once.

A `CachedImage` stands where an image would in an item or a question. The sequencer here puts the cached tokens in its
place. Prompts, token ids, positions and every forward pass are those of the library, so training has exactly the
sequences of inference.

Letters: T tokens of an image, D width.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from comem_ray.artifacts import write_atomic
from comem_ray.model.backbone import Backbone
from comem_ray.model.sequences import Batch, ImageFeatures, Sequencer
from comem_ray.prompts import ImagePart
from examples.countries.train.prefetch import prefetch
from examples.countries.world.outlines import Map, draw, random_view

log = logging.getLogger(__name__)

GRID = [1, 6, 8]  # patches of a 112 x 84 image: frames, rows, columns
BATCH = 128


@dataclass(frozen=True)
class CachedImage:
    """A view of a map, by its two indices in the cache."""

    map: int
    view: int


def view_image(content: Map, cached: CachedImage) -> Image.Image:
    """The image that `cached` stands for, `content` being its map; as large as those of the knowledge base."""
    return draw(content, random_view(random.Random(f"seen {cached.map} {cached.view}")))


def cache_image_tokens(backbone: Backbone, maps: Sequence[Map], views: int, path: Path) -> Tensor:
    """Tokens (maps, views, T, D), bf16, of random views of every map; read from `path`, first written where missing."""
    if not path.exists():
        images = [CachedImage(m, v) for m in range(len(maps)) for v in range(views)]
        starts = range(0, len(images), BATCH)
        batches = prefetch(lambda i: _draw_batch(backbone, maps, images[i : i + BATCH]), starts, os.cpu_count() or 1)
        tokens = [_image_tokens(backbone, batch) for batch in batches]
        shape = (len(maps), views, -1, backbone.width)
        stored = {"tokens": torch.cat(tokens).view(shape)}
        write_atomic(path, lambda p: save_file(stored, p))
        log.info("tokens of %d images in %s", len(images), path)
    return load_file(path)["tokens"]


def _draw_batch(backbone: Backbone, maps: Sequence[Map], images: Sequence[CachedImage]) -> Batch:
    parts = [ImagePart(view_image(maps[image.map], image), "item") for image in images]
    return backbone.sequencer.batch([backbone.sequencer.sequence([part]) for part in parts], padding="right")


@torch.no_grad()
def _image_tokens(backbone: Backbone, batch: Batch) -> Tensor:
    tokens = backbone.image_features(batch)
    assert tokens is not None
    return tokens.to("cpu", torch.bfloat16)


class CachedImageSequencer(Sequencer):
    """A sequencer of prompts whose images are `CachedImage`s: their cached tokens stand for them."""

    def __init__(self, sequencer: Sequencer, tokens: Tensor):
        self.__dict__.update(sequencer.__dict__)
        self.cache = tokens

    def tokens(self, images: Sequence[CachedImage]) -> Tensor:
        """The cached tokens (images, T, D), bf16."""
        return torch.stack([self.cache[image.map, image.view] for image in images])

    def _image(self, part: ImagePart) -> tuple[Tensor | ImageFeatures, list[int]]:
        (tokens,) = self.tokens([cast(CachedImage, part.image)])
        return ImageFeatures(tokens, GRID), GRID


class CachedImageBackbone(Backbone):
    """A backbone with a `CachedImageSequencer`."""

    sequencer: CachedImageSequencer


def with_cached_images(backbone: Backbone, tokens: Tensor) -> CachedImageBackbone:
    """The same model, for prompts with `CachedImage`s. `tokens` is the cache (maps, views, T, D)."""
    return CachedImageBackbone(backbone.model, CachedImageSequencer(backbone.sequencer, tokens), backbone.device)
