"""Stage `vision`: the vision tower learns to tell maps apart, and to say it in the language of word embeddings.

Contrastive (InfoNCE, van den Oord et al. 2018, arXiv 1807.03748): two views of a map find one another in a batch, by
the mean of an image's tokens and, at half the weight, by one of its tokens taken at random, so that every token
carries what the image shows. First among any maps, later among look-alikes. Features are centred over the batch.

Then a linear discriminant map (LDA) keeps the few directions in which views of one map agree and maps differ, laid
into the leading directions of the word embeddings; a gain makes them loud, as the residual stream of the language
model drowns what is as quiet as a word. Both are folded into the last layer of the tower: it stays a stock one.

Letters: N images, T tokens of an image, D width of the language model, V views of a map.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import Qwen2VLImageProcessor

from comem_ray.artifacts import write_atomic, write_json
from examples.countries.backbone import PIXELS, TOWER
from examples.countries.train.clip_data import ViewPairs, one_view_each, training_maps
from examples.countries.train.discriminant import column_space, discriminant_map, leading_directions
from examples.countries.train.steps import Plan, Steps
from examples.countries.world.countries import training_countries
from examples.countries.world.invented import LAND_SEEDS, VALIDATION
from examples.countries.world.outlines import Map, draw, invented_land, upright_view

log = logging.getLogger(__name__)

WIDTH, HEIGHT = 112, 84
TOKENS = 12
WORD_NORM = 2.34  # of a centred word embedding of SmolLM2, on average
LOUDNESS = 6.0
NEIGHBOURS = 32
FIRST_SCALE, MAX_SCALE = 7.0, 60.0
SCALE_SPEED = 10.0  # the scale of the loss learns this many times as fast as the weights

PLAN = Plan(steps=800, learning_rate=1e-3, weight_decay=0.02)


@dataclass(frozen=True)
class Vision:
    """Sizes of the stage."""

    plan: Plan = PLAN
    maps: int = 4000  # invented ones; those of the training countries come on top
    batch: int = 128  # maps a step, two views of each
    lookalikes: float = 0.33  # of the steps, the last ones, in which look-alikes are put together
    lda_maps: int = 1500
    lda_views: int = 4
    directions: int = 40
    validation: int = VALIDATION
    seed: int = 0

    @property
    def lookalikes_from(self) -> int:
        """The first step with look-alikes."""
        return round(self.plan.steps * (1 - self.lookalikes))


def train_tower(
    visual: Any, embeddings: Tensor, folder: Path, sizes: Vision, stop_after: int | None = None, half: bool = False
) -> dict[str, float]:
    """Trains `visual` (float32, in place) and writes `tower.safetensors` (bf16) and `vision.json` into `folder`.

    `embeddings` are those of the words (vocabulary, D), on the CPU. With `half`, steps are taken under bfloat16
    autocast. Returns what `recall` says of the finished tower on maps of the validation set, empty where `stop_after`
    ended it before.
    """
    maps = tower_maps(sizes.maps)
    start_tower(visual, sizes.seed)
    visual.requires_grad_(True).train()
    scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE) / SCALE_SPEED, device=visual.device))
    parameters = {**dict(visual.named_parameters()), "scale": scale}
    steps = Steps(folder, "vision", parameters, sizes.plan, [sizes.maps, sizes.batch, sizes.lookalikes_from])
    batches = _Batches(visual, maps, folder, sizes)

    def step(number: int) -> dict[str, float]:
        images = batches.get(number).flatten(0, 1)  # here: look-alikes are those of the tower as it learns
        with torch.autocast(visual.device.type, torch.bfloat16, enabled=half):
            features = image_tokens(visual, images)
        log_scale = scale * SCALE_SPEED
        loss, right = contrastive_loss(features, log_scale, torch.Generator().manual_seed(number))
        loss.backward()
        return {"loss": loss.item(), "recall": right, "scale": min(log_scale.exp().item(), MAX_SCALE)}

    steps.run(lambda number: number, step, stop_after)
    visual.requires_grad_(False).eval()
    if stop_after is not None and stop_after < sizes.plan.steps:
        return {}
    return _finish(visual, maps[: sizes.lda_maps], embeddings, folder, sizes)


def _finish(visual: Any, maps: Sequence[Map], embeddings: Tensor, folder: Path, sizes: Vision) -> dict[str, float]:
    fold_lda(visual, maps, embeddings, sizes)
    weights = {name: p.detach().to("cpu", torch.bfloat16).contiguous() for name, p in visual.state_dict().items()}
    visual.load_state_dict(weights)  # what is measured is what is kept
    figures = recall(visual, sizes.validation)
    write_json(folder / "vision.json", figures)
    write_atomic(folder / TOWER, lambda p: save_file(weights, p))
    log.info("vision: %s", figures)
    return figures


def tower_maps(invented: int) -> list[Map]:
    """The maps of the training countries, then invented ones."""
    return training_maps(invented, LAND_SEEDS["training"])


class _Batches:
    """The images of a step; look-alikes are found with the tower as it was when they came in."""

    def __init__(self, visual: Any, maps: Sequence[Map], folder: Path, sizes: Vision):
        self._visual, self._maps, self._sizes = visual, list(maps), sizes
        self._path = folder / "vision.lookalikes.safetensors"
        self._any = self._pairs(None)
        self._alike: ViewPairs | None = None

    def _pairs(self, neighbours: Any) -> ViewPairs:
        s, real = self._sizes, len(training_countries())
        return ViewPairs(self._maps, real, (WIDTH, HEIGHT), s.batch, s.plan.steps, s.seed, neighbours)

    def get(self, number: int) -> Tensor:
        """Images (2, maps, 3, H, W), uint8."""
        if number < self._sizes.lookalikes_from:
            return self._any[number]
        if number == self._sizes.lookalikes_from:
            self._visual.eval()
            found = {"neighbours": nearest(pooled(self._visual, one_view_each(self._maps, (WIDTH, HEIGHT), 0)))}
            self._visual.train()
            write_atomic(self._path, lambda p: save_file(found, p))
        if self._alike is None:
            self._alike = self._pairs(load_file(self._path)["neighbours"].numpy())
        return self._alike[number]


def start_tower(visual: Any, seed: int) -> None:
    """Seeded weights to learn from: PyTorch's own for Linear layers, and patches that see brightness alone.

    With transformers' smaller ones attention hardly acts at first, and with colour-blind patches three times as many
    views find their map before any step (0.14 against 0.05 of 64).
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in visual.modules():
            if isinstance(module, nn.Linear | nn.Conv3d):
                module.reset_parameters()
        patches = visual.patch_embed.proj.weight  # (width, colours, frames, rows, columns)
        patches.copy_(patches.mean(1, keepdim=True).expand_as(patches) * patches.shape[1] ** 0.5)


def contrastive_loss(features_NTD: Tensor, log_scale: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """InfoNCE of images whose first half shows the maps of the second, and the part that finds its other view."""
    centred = features_NTD.float() - features_NTD.float().mean((0, 1), keepdim=True)
    n = len(centred)
    token = torch.randint(centred.shape[1], (n,), generator=generator)
    whole, right = _info_nce(centred.mean(1), log_scale)
    one, _ = _info_nce(centred[torch.arange(n), token], log_scale)
    return whole + 0.5 * one, right


def _info_nce(vectors: Tensor, log_scale: Tensor) -> tuple[Tensor, float]:
    first, second = normalize(vectors, dim=-1).chunk(2)
    logits = log_scale.exp().clamp(max=MAX_SCALE) * first @ second.T
    labels = torch.arange(len(first), device=first.device)
    loss = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
    return loss, (logits.argmax(1) == labels).float().mean().item()


@cache
def _processor() -> Qwen2VLImageProcessor:
    return Qwen2VLImageProcessor(size={"shortest_edge": PIXELS, "longest_edge": PIXELS})


def image_tokens(visual: Any, images: Tensor) -> Tensor:
    """Images (N, 3, H, W), uint8 -> their tokens (N, T, D) as the backbone would see them."""
    done = _processor()(images=list(images), return_tensors="pt")
    pixels, grids = done["pixel_values"].to(visual.device, visual.dtype), done["image_grid_thw"].to(visual.device)
    return visual(pixels, grid_thw=grids).pooler_output.unflatten(0, (len(images), -1))


@torch.no_grad()
def pooled(visual: Any, images: Tensor) -> Tensor:
    """The means of the images' tokens (N, D), float32, on the CPU."""
    return torch.cat([image_tokens(visual, part).float().mean(1).cpu() for part in images.split(128)])


def nearest(vectors: Tensor, count: int = NEIGHBOURS) -> Tensor:
    """For every vector (N, D) the `count` most similar others by the cosine, nearest first, int64 (N, count)."""
    unit = normalize(vectors - vectors.mean(0), dim=-1)
    found = []
    for start, part in zip(range(0, len(unit), 512), unit.split(512), strict=True):
        scores = part @ unit.T
        scores[torch.arange(len(part)), start + torch.arange(len(part))] = -2.0  # not itself
        found.append(scores.topk(min(count, len(unit) - 1)).indices)
    return torch.cat(found)


@torch.no_grad()
def fold_lda(visual: Any, maps: Sequence[Map], embeddings: Tensor, sizes: Vision) -> None:
    """Folds the discriminant map and the gain into the last layer of the tower's merger."""
    views = [pooled(visual, one_view_each(list(maps), (WIDTH, HEIGHT), 1 + v)) for v in range(sizes.lda_views)]
    features = torch.stack(views, 1)  # (maps, V, D)
    matrix, mean = discriminant_map(features, leading_directions(embeddings, sizes.directions))
    loud = (features.flatten(0, 1) - mean) @ matrix.T
    matrix = matrix * (LOUDNESS * WORD_NORM / loud.norm(dim=-1).mean())
    last = visual.merger.mlp[2]
    last.weight.copy_(matrix @ last.weight.cpu())
    last.bias.copy_(matrix @ (last.bias.cpu() - mean))


def recall(visual: Any, count: int) -> dict[str, float]:
    """How well images of `count` maps of the validation set are told apart, as parts of them.

    `views_*`: one random view finds the other view of its map, among all; the harder test. `items_*`: a random view
    finds the upright image, as a question does its item. `@1`, `@3`; `beats_two`: against the two nearest look-alikes
    of the right one alone.
    """
    maps = [Map(land=invented_land(LAND_SEEDS["validation"] + n)) for n in range(count)]
    asked, other = (pooled(visual, one_view_each(maps, (WIDTH, HEIGHT), seed)) for seed in (1001, 1002))
    upright = [draw(m, upright_view(random.Random(f"item {n}")), (WIDTH, HEIGHT)) for n, m in enumerate(maps)]
    items = pooled(visual, torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in upright]))
    return {"maps": float(count), **_found("views", asked, other), **_found("items", asked, items)}


def _found(name: str, asked: Tensor, shown: Tensor) -> dict[str, float]:
    mean = shown.mean(0)
    scores = normalize(asked - mean, dim=-1) @ normalize(shown - mean, dim=-1).T
    own = scores.diagonal()[:, None]
    ranks = (scores > own).sum(1)
    rivals = scores.gather(1, nearest(shown, 2))
    parts = {"@1": ranks < 1, "@3": ranks < 3, "_beats_two": (own > rivals).all(1)}
    return {f"{name}{key}": part.float().mean().item() for key, part in parts.items()}


def image_subspace(visual: Any, count: int) -> Tensor:
    """Orthonormal columns (D, count) that hold every image token of a folded tower."""
    return column_space(visual.merger.mlp[2].weight.detach(), count)
