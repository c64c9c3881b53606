"""The tower is frozen once it is trained: images go through it once, and training reads their tokens from a cache.

A `Seen` stands where an image would in an item or a question. The sequencer here puts the cached tokens in its place;
prompts, token ids, positions and every forward pass are those of the library, so that training sees exactly the
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
from examples.countries.train.ahead import made_ahead
from examples.countries.world.outlines import Map, draw, random_view

log = logging.getLogger(__name__)

GRID = [1, 6, 8]  # patches of a 112 x 84 image: frames, rows, columns
BATCH = 128


@dataclass(frozen=True)
class Seen:
    """A view of a map, by its place in the cache."""

    map: int
    view: int


def view_image(drawn: Map, seen: Seen) -> Image.Image:
    """The image that a `Seen` stands for, as large as those of the knowledge base."""
    return draw(drawn, random_view(random.Random(f"seen {seen.map} {seen.view}")))


def cached_tokens(backbone: Backbone, maps: Sequence[Map], views: int, path: Path) -> Tensor:
    """Tokens (maps, views, T, D), bf16, of random views of every map; read from `path` where they are there."""
    if not path.exists():
        wanted = [Seen(m, v) for m in range(len(maps)) for v in range(views)]
        starts = range(0, len(wanted), BATCH)
        drawn = made_ahead(lambda i: _drawn(backbone, maps, wanted[i : i + BATCH]), starts, os.cpu_count() or 1)
        tokens = [_tokens(backbone, batch) for batch in drawn]
        shape = (len(maps), views, -1, backbone.width)
        saved = {"tokens": torch.cat(tokens).view(shape)}
        write_atomic(path, lambda p: save_file(saved, p))
        log.info("tokens of %d images in %s", len(wanted), path)
    return load_file(path)["tokens"]


def _drawn(backbone: Backbone, maps: Sequence[Map], wanted: Sequence[Seen]) -> Batch:
    shown = [ImagePart(view_image(maps[s.map], s), "item") for s in wanted]
    return backbone.sequencer.batch([backbone.sequencer.sequence([s]) for s in shown], padding="right")


@torch.no_grad()
def _tokens(backbone: Backbone, batch: Batch) -> Tensor:
    tokens = backbone.image_features(batch)
    assert tokens is not None
    return tokens.to("cpu", torch.bfloat16)


class SeenSequencer(Sequencer):
    """A sequencer of prompts whose images are `Seen`: their cached tokens stand for them."""

    def __init__(self, sequencer: Sequencer, tokens: Tensor):
        self.__dict__.update(sequencer.__dict__)
        self.cache = tokens

    def tokens(self, images: Sequence[Seen]) -> Tensor:
        """The cached tokens (images, T, D), bf16."""
        return torch.stack([self.cache[seen.map, seen.view] for seen in images])

    def _image(self, shown: ImagePart) -> tuple[Tensor | ImageFeatures, list[int]]:
        (tokens,) = self.tokens([cast(Seen, shown.image)])
        return ImageFeatures(tokens, GRID), GRID


class SeenBackbone(Backbone):
    """A backbone with a `SeenSequencer`."""

    sequencer: SeenSequencer


def seen_backbone(backbone: Backbone, tokens: Tensor) -> SeenBackbone:
    """The same model, for prompts with `Seen` images. `tokens` is the cache (maps, views, T, D)."""
    return SeenBackbone(backbone.model, SeenSequencer(backbone.sequencer, tokens), backbone.device)
