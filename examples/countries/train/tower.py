"""Stage `vision`: the vision tower learns to tell maps apart, with tokens that lie in the space of word embeddings.

Contrastive (InfoNCE, van den Oord et al. 2018, arXiv 1807.03748): two views of a map are to match within a batch, by
the mean of an image's tokens and, at half the weight, by one of its tokens taken at random, so that every token
identifies the image. First among any maps, later among look-alikes. Features are centred over the batch.

Then a linear discriminant map (LDA) keeps the few directions in which views of one map agree and maps differ, and moves
them into the leading directions of the word embeddings. A gain makes them strong: next to the language model's residual
stream a token of a word's norm has no effect. Both are folded into the last layer of the tower: it stays a stock one.

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
from examples.countries.train.stage_loop import Plan, StageLoop
from examples.countries.world.countries import training_countries
from examples.countries.world.invented import LAND_SEEDS, VALIDATION
from examples.countries.world.outlines import Map, draw, invented_land, upright_view

log = logging.getLogger(__name__)

WIDTH, HEIGHT = 112, 84
TOKENS = 12
WORD_NORM = 2.34  # of a centred word embedding of SmolLM2, on average
GAIN = 6.0  # norm of an image's mean token, in units of WORD_NORM
NEIGHBOURS = 32
FIRST_SCALE, MAX_SCALE = 7.0, 60.0
SCALE_SPEED = 10.0  # the scale of the loss learns this many times as fast as the weights

PLAN = Plan(steps=800, learning_rate=1e-3, weight_decay=0.02)


@dataclass(frozen=True)
class VisionSizes:
    """Sizes of the stage."""

    plan: Plan = PLAN
    maps: int = 4000  # invented ones; those of the training countries come on top
    batch: int = 128  # maps per step, two views of each
    lookalikes: float = 0.33  # fraction of the steps, the last ones, whose batches are made of look-alikes
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
    visual: Any, embeddings: Tensor, folder: Path, sizes: VisionSizes, stop_after: int | None = None, half: bool = False
) -> dict[str, float]:
    """Trains `visual` (float32, in place) and writes `tower.safetensors` (bf16) and `vision.json` into `folder`.

    `embeddings` are the word embeddings (vocabulary, D), on the CPU. With `half`, steps run under bfloat16 autocast.
    Returns the metrics of `recall` for the finished tower on the validation maps; empty where `stop_after` ended it
    before the last step.
    """
    maps = tower_maps(sizes.maps)
    init_tower(visual, sizes.seed)
    visual.requires_grad_(True).train()
    scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE) / SCALE_SPEED, device=visual.device))
    parameters = {**dict(visual.named_parameters()), "scale": scale}
    loop = StageLoop(folder, "vision", parameters, sizes.plan, [sizes.maps, sizes.batch, sizes.lookalikes_from])
    batches = _Batches(visual, maps, folder, sizes)

    def step(number: int) -> dict[str, float]:
        images = batches.get(number).flatten(0, 1)  # not prefetched: look-alikes depend on the tower as it learns
        with torch.autocast(visual.device.type, torch.bfloat16, enabled=half):
            features = image_tokens(visual, images)
        log_scale = scale * SCALE_SPEED
        loss, accuracy = contrastive_loss(features, log_scale, torch.Generator().manual_seed(number))
        loss.backward()
        return {"loss": loss.item(), "recall": accuracy, "scale": min(log_scale.exp().item(), MAX_SCALE)}

    loop.run(lambda number: number, step, stop_after)
    visual.requires_grad_(False).eval()
    if stop_after is not None and stop_after < sizes.plan.steps:
        return {}
    return _finish(visual, maps[: sizes.lda_maps], embeddings, folder, sizes)


def _finish(visual: Any, maps: Sequence[Map], embeddings: Tensor, folder: Path, sizes: VisionSizes) -> dict[str, float]:
    fold_lda(visual, maps, embeddings, sizes)
    weights = {name: p.detach().to("cpu", torch.bfloat16).contiguous() for name, p in visual.state_dict().items()}
    visual.load_state_dict(weights)  # what is measured is what is stored
    metrics = recall(visual, sizes.validation)
    write_json(folder / "vision.json", metrics)
    write_atomic(folder / TOWER, lambda p: save_file(weights, p))
    log.info("vision: %s", metrics)
    return metrics


def tower_maps(invented: int) -> list[Map]:
    """The maps of the training countries, then invented ones."""
    return training_maps(invented, LAND_SEEDS["training"])


class _Batches:
    """The images of a step. Look-alikes are those of the tower as it was at the first step that has some."""

    def __init__(self, visual: Any, maps: Sequence[Map], folder: Path, sizes: VisionSizes):
        self._visual, self._maps, self._sizes = visual, list(maps), sizes
        self._path = folder / "vision.lookalikes.safetensors"
        self._random_pairs = self._pairs(None)
        self._lookalike_pairs: ViewPairs | None = None

    def _pairs(self, neighbours: Any) -> ViewPairs:
        s, real = self._sizes, len(training_countries())
        return ViewPairs(self._maps, real, (WIDTH, HEIGHT), s.batch, s.plan.steps, s.seed, neighbours)

    def get(self, number: int) -> Tensor:
        """Images (2, maps, 3, H, W), uint8."""
        if number < self._sizes.lookalikes_from:
            return self._random_pairs[number]
        if number == self._sizes.lookalikes_from:
            self._visual.eval()
            views = one_view_each(self._maps, (WIDTH, HEIGHT), 0)
            stored = {"neighbours": nearest(mean_tokens(self._visual, views))}
            self._visual.train()
            write_atomic(self._path, lambda p: save_file(stored, p))
        if self._lookalike_pairs is None:
            self._lookalike_pairs = self._pairs(load_file(self._path)["neighbours"].numpy())
        return self._lookalike_pairs[number]


def init_tower(visual: Any, seed: int) -> None:
    """Seeded initial weights, in place: PyTorch's own for Linear layers, and patches that read brightness alone.

    With transformers' smaller ones attention hardly acts at first. With colour-blind patches three times as many views
    match their map before any step (0.14 against 0.05 of 64).
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in visual.modules():
            if isinstance(module, nn.Linear | nn.Conv3d):
                module.reset_parameters()
        patches = visual.patch_embed.proj.weight  # (width, colours, frames, rows, columns)
        patches.copy_(patches.mean(1, keepdim=True).expand_as(patches) * patches.shape[1] ** 0.5)


def contrastive_loss(features_NTD: Tensor, log_scale: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """InfoNCE of images (N, T, D), whose first half shows the maps of the second, and the fraction that is matched."""
    centred = features_NTD.float() - features_NTD.float().mean((0, 1), keepdim=True)
    n = len(centred)
    token = torch.randint(centred.shape[1], (n,), generator=generator)
    mean_loss, accuracy = _info_nce(centred.mean(1), log_scale)
    token_loss, _ = _info_nce(centred[torch.arange(n), token], log_scale)
    return mean_loss + 0.5 * token_loss, accuracy


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
    """The tokens (N, T, D) of images (N, 3, H, W), uint8, as the backbone would have them."""
    inputs = _processor()(images=list(images), return_tensors="pt")
    pixels, grids = inputs["pixel_values"].to(visual.device, visual.dtype), inputs["image_grid_thw"].to(visual.device)
    return visual(pixels, grid_thw=grids).pooler_output.unflatten(0, (len(images), -1))


@torch.no_grad()
def mean_tokens(visual: Any, images: Tensor) -> Tensor:
    """The means of the images' tokens (N, D), float32, on the CPU."""
    return torch.cat([image_tokens(visual, part).float().mean(1).cpu() for part in images.split(128)])


def nearest(vectors: Tensor, count: int = NEIGHBOURS) -> Tensor:
    """For every vector (N, D) the `count` most similar others by the cosine, nearest first, int64 (N, count)."""
    unit = normalize(vectors - vectors.mean(0), dim=-1)
    neighbours = []
    for start, part in zip(range(0, len(unit), 512), unit.split(512), strict=True):
        scores = part @ unit.T
        scores[torch.arange(len(part)), start + torch.arange(len(part))] = -2.0  # not itself
        neighbours.append(scores.topk(min(count, len(unit) - 1)).indices)
    return torch.cat(neighbours)


@torch.no_grad()
def fold_lda(visual: Any, maps: Sequence[Map], embeddings: Tensor, sizes: VisionSizes) -> None:
    """Folds the discriminant map and the gain into the last layer of the tower's merger."""
    views = [mean_tokens(visual, one_view_each(list(maps), (WIDTH, HEIGHT), 1 + v)) for v in range(sizes.lda_views)]
    features = torch.stack(views, 1)  # (maps, V, D)
    matrix, mean = discriminant_map(features, leading_directions(embeddings, sizes.directions))
    mapped = (features.flatten(0, 1) - mean) @ matrix.T
    matrix = matrix * (GAIN * WORD_NORM / mapped.norm(dim=-1).mean())
    last = visual.merger.mlp[2]
    last.weight.copy_(matrix @ last.weight.cpu())
    last.bias.copy_(matrix @ (last.bias.cpu() - mean))


def recall(visual: Any, count: int) -> dict[str, float]:
    """How well images of `count` maps of the validation split are told apart, as fractions of them.

    `views@1`, `views@3`: a random view finds another random view of its map among those of all. `items@1`, `items@3`:
    it finds the upright image, as a question its item. `..._beats_two`: it is nearer to the right one than to the two
    nearest look-alikes of that.
    """
    maps = [Map(land=invented_land(LAND_SEEDS["validation"] + n)) for n in range(count)]
    questions, others = (mean_tokens(visual, one_view_each(maps, (WIDTH, HEIGHT), seed)) for seed in (1001, 1002))
    upright = [draw(m, upright_view(random.Random(f"item {n}")), (WIDTH, HEIGHT)) for n, m in enumerate(maps)]
    items = mean_tokens(visual, torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in upright]))
    return {"maps": float(count), **_recall("views", questions, others), **_recall("items", questions, items)}


def _recall(name: str, questions: Tensor, gallery: Tensor) -> dict[str, float]:
    mean = gallery.mean(0)
    scores = normalize(questions - mean, dim=-1) @ normalize(gallery - mean, dim=-1).T
    own = scores.diagonal()[:, None]
    ranks = (scores > own).sum(1)
    rivals = scores.gather(1, nearest(gallery, 2))
    hits = {"@1": ranks < 1, "@3": ranks < 3, "_beats_two": (own > rivals).all(1)}
    return {f"{name}{key}": hit.float().mean().item() for key, hit in hits.items()}


def image_subspace(visual: Any, count: int) -> Tensor:
    """Orthonormal columns (D, count) that span every image token of a tower after `fold_lda`."""
    return column_space(visual.merger.mlp[2].weight.detach(), count)
