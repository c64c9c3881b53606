"""Linear algebra of the image signature: the directions that tell maps apart, moved into the space of the words.

Fisher's linear discriminant analysis (1936), mapped into the principal directions of the word embeddings. Knows nothing
of images or models.

Letters: V views of a map, D width, k directions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def leading_directions(embeddings: Tensor, count: int) -> Tensor:
    """The `count` principal directions of the centred word embeddings, orthonormal columns (D, count)."""
    centred = embeddings.float() - embeddings.float().mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    return vectors.flip(1)[:, :count]


def discriminant_map(features: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Fisher's discriminant of (maps, V, D), mapped into `directions` (D, k): a matrix (D, D) and the mean (D).

    Strong directions are divided by the fourth root of their ratio, or a few would dominate the rest.
    """
    maps, views, width = features.shape
    mean, map_means = features.mean((0, 1)), features.mean(1)
    deviations, between = (features - map_means[:, None]).flatten(0, 1), map_means - mean
    within = deviations.T @ deviations / (maps * max(1, views - 1))
    within = within + 1e-2 * within.trace() / width * torch.eye(width)
    white = torch.linalg.inv(torch.linalg.cholesky(within))
    ratios, vectors = torch.linalg.eigh(white @ (between.T @ between / maps) @ white.T)
    count = directions.shape[1]
    ratios, vectors = ratios.flip(0)[:count].clamp(min=1e-6), vectors.flip(1)[:, :count]
    return directions @ ((vectors.T @ white) / ratios[:, None] ** 0.25), mean


def column_space(weight: Tensor, count: int) -> Tensor:
    """Orthonormal columns (D, count) that span the outputs of a Linear layer of rank `count` with `weight` (D, in)."""
    left, _, _ = torch.linalg.svd(weight.float(), full_matrices=False)
    return left[:, :count]
