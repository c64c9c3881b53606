"""The LoRA of a released model, Linear by Linear: one merged and one base weight are in memory at a time.

An update is left @ right. LoRA computes scale * B @ A with scale = alpha / rank, so B = left / sqrt(scale) and
A = right / sqrt(scale). The scale is that of the paper, 2. A is padded with rows of 0 to the largest rank of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from comem_ray.artifacts import ArtifactError
from comem_ray.finite import dtype_name, is_finite
from comem_ray.model.released.low_rank import FullRank, LowRank, recover
from comem_ray.model.released.release import Release, Tensors
from comem_ray.model.released.shards import StoredTensor

RANK, SCALE = 16, 2.0  # of the paper: rank 16, alpha 32


@dataclass(frozen=True)
class LinearReport:
    """What became of one Linear. `rank` is the number of singular values above the rounding noise, 0 if unchanged.

    Frobenius norms: `norm` of merged - base, `residual` of what the LoRA leaves of it, `noise` of the rounding noise
    that the stored format leads to.
    """

    shape: tuple[int, ...]
    dtype: str
    changed: bool
    rank: int = 0
    norm: float = 0.0
    residual: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True)
class RecoveredLora:
    """Matrices by module: A (R, I) and B (O, R), float32, of every Linear that changed; a report of every Linear."""

    rank: int
    alpha: float
    matrices: dict[str, tuple[Tensor, Tensor]]
    linears: dict[str, LinearReport]

    @property
    def changed(self) -> bool:
        return bool(self.matrices)


def recover_lora(release: Release, part: Tensors, rank: int | None, done: Callable[[], object]) -> RecoveredLora:
    """The LoRA that makes `part` of `release` out of its base. `done` is called after each Linear.

    `rank` None takes 16, or more where more is found. Raises ArtifactError, naming the tensor, where a weight is not
    finite, or its difference to the base is not of low rank.
    """
    updates: dict[str, LowRank] = {}
    linears: dict[str, LinearReport] = {}
    for name in sorted(release.linears & part.keys()):
        module = name.removesuffix(".weight")
        update = _update(release, part[name], release.base[name], rank)
        linears[module] = _report(part[name], update)
        if update is not None:
            updates[module] = update
        done()
    used = rank or max([RANK, *(update.left.shape[1] for update in updates.values())])
    matrices = {module: _matrices(update, used) for module, update in updates.items()}
    return RecoveredLora(used, SCALE * used, matrices, linears)


def zero_matrices(release: Release, rank: int) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Matrices of 0 for every Linear: the LoRA of a model that was not changed."""
    for name in sorted(release.linears):
        outputs, inputs = release.base[name].shape
        yield name.removesuffix(".weight"), (torch.zeros(rank, inputs), torch.zeros(outputs, rank))


@torch.no_grad()
def _update(release: Release, merged: StoredTensor, base: StoredTensor, rank: int | None) -> LowRank | None:
    weights = merged.read(), base.read()
    for stored, weight in zip((merged, base), weights, strict=True):
        if not is_finite(weight):
            raise ArtifactError(f"{stored.path}: {stored.name} holds NaN or infinity: copy or download it again")
    try:
        return recover(*weights, rank=rank or RANK, forced=rank is not None)
    except FullRank as error:
        shapes = f"{list(merged.shape)} in the release, {list(base.shape)} in the base"
        raise ArtifactError(
            f"{merged.name} ({shapes}) differs from the base by a matrix of rank {error.rank} or more, LoRA by at most "
            f"{error.limit}: name as --base the checkpoint that it was trained from, {release.base_folder} is another; "
            "or keep the first N components with --rank N"
        ) from error


def _report(stored: StoredTensor, update: LowRank | None) -> LinearReport:
    shape, dtype = stored.shape, dtype_name(stored.dtype)
    if update is None:
        return LinearReport(shape, dtype, changed=False)
    return LinearReport(shape, dtype, True, update.rank, update.norm, update.residual, update.noise)


def _matrices(update: LowRank, rank: int) -> tuple[Tensor, Tensor]:
    missing = rank - update.left.shape[1]
    a = F.pad(update.right / SCALE**0.5, (0, 0, 0, missing))
    return a.contiguous(), F.pad(update.left / SCALE**0.5, (0, missing)).contiguous()
