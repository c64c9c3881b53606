"""What LoRA cannot change must be as in the base: norms, biases, embeddings, lm_head, the patch embedding."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from comem_ray.artifacts import ArtifactError
from comem_ray.model.released.low_rank import equal
from comem_ray.model.released.release import Release, Tensors
from comem_ray.model.released.shards import StoredTensor
from comem_ray.weights import NAMES_SHOWN


def require_equal(release: Release, part: Tensors) -> int:
    """Compares all but the Linears of LoRA with the base, small ones first; returns their number.

    Raises ArtifactError, naming the first tensors that differ. Of two formats, it is enough to be the same in one.
    """
    names = sorted(part.keys() - release.linears, key=lambda name: (math.prod(part[name].shape), name))
    different: list[str] = []
    for name in names:
        largest = largest_difference(part[name], release.base[name])
        if largest is not None:
            shape = list(part[name].shape)
            different.append(f"{part[name].name} of shape {shape}, by up to {largest:.3g}")
        if len(different) == NAMES_SHOWN:
            break
    if different:
        raise ArtifactError(
            f"{release.folder} differs from the base in tensors that LoRA does not change ({'; '.join(different)}): "
            f"name as --base the checkpoint that it was trained from, {release.base_folder} is another"
        )
    return len(names)


def largest_difference(a: StoredTensor, b: StoredTensor) -> float | None:
    """The largest difference of two stored tensors of one shape, read in pieces; None where they are the same.

    NaN where one of them is not a number.
    """
    different = [float((x.double() - y.double()).abs().max()) for x, y in _pieces(a, b) if not equal(x, y)]
    return max(different) if different else None


def _pieces(a: StoredTensor, b: StoredTensor) -> Iterable[tuple[Tensor, Tensor]]:
    if not a.shape:
        return [(a.read(), b.read())]
    return ((a.read(rows), b.read(rows)) for rows in a.rows())
