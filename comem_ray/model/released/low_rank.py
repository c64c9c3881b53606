"""LoRA recovered from merged weights: truncated SVD of (merged - base), and its rank against the rounding noise.

A merged weight is stored rounded, so the difference is a product of rank r plus noise of full rank. The noise is known:
a number w in a format of p mantissa bits is off by a uniform error of at most half a unit in its last place, of mean
square NOISE * w^2 / 4^p (mantissas spread logarithmically). The largest singular value of such a matrix is at most the
largest row norm plus the largest column norm of the errors. Singular values above it are the update.

Large matrices take a randomized SVD (Halko, Martinsson, Tropp 2011, arXiv 0909.4061) with power iterations; the
residual is computed from the factors themselves, whatever made them.

Shapes: O outputs, I inputs, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

NOISE = (1 - 1 / 4) / (2 * math.log(2)) / 12
MANTISSA_BITS = {torch.float64: 52, torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}
MARGIN = 1.1  # over the bound of the noise
RELATIVE = 2.0**-20  # of the largest singular value: below it, float32 arithmetic sees nothing
EXACT_SIDE, EXACT_SIZE = 128, 1 << 18  # up to this shorter side, or so many numbers, the SVD is exact, in float64
OVERSAMPLING, POWER_ITERATIONS = 16, 3
_CHUNK = 1 << 22  # numbers that are squared at a time


class FullRank(ValueError):
    """A difference that is no LoRA's: more singular values above the noise than an update of low rank has.

    `rank` is how many there are at least, `limit` how many there may be.
    """

    def __init__(self, rank: int, limit: int):
        super().__init__(f"rank {rank} or more, want at most {limit}")
        self.rank, self.limit = rank, limit


@dataclass(frozen=True)
class LowRank:
    """left (O, R) @ right (R, I), float32, with R = max(rank asked for, rank found), at most the shorter side."""

    left: Tensor
    right: Tensor
    rank: int  # numerical rank: singular values above the rounding noise
    norm: float  # Frobenius norms: of merged - base, of what left @ right leaves of it,
    residual: float
    noise: float  # and of the rounding noise that is expected


def mantissa_bits(weight: Tensor) -> int:
    """Bits of the narrowest format that holds all numbers of `weight`: bfloat16 weights may be stored as float32."""
    bits = MANTISSA_BITS[weight.dtype]
    for dtype in (torch.bfloat16, torch.float16):
        if MANTISSA_BITS[dtype] < bits and torch.equal(weight.to(dtype).to(weight.dtype), weight):
            return MANTISSA_BITS[dtype]
    return bits


def recover(merged: Tensor, base: Tensor, rank: int = 16, forced: bool = False) -> LowRank | None:
    """The update of rank `rank`, or more where more is found, in merged - base (O, I); None where both are the same.

    With `forced`, exactly `rank` is taken, whatever is left. Otherwise raises FullRank for a difference that is
    not of low rank. Two weights of different formats are the same if they are in one of them.
    """
    if equal(merged, base):
        return None
    bits = (mantissa_bits(merged), mantissa_bits(base))
    difference = merged.float() - base.float()
    shorter = min(difference.shape)
    limit = shorter if forced else max(rank, min(shorter // 2, 256))
    energies, failure = _energies(merged), None
    # The release is rounded; the base may be; the update may have been rounded to bfloat16 before it was added.
    noises = [_Noise.of(energies, bits[0]), _Noise.of(energies, min(bits))]
    noises.append(noises[-1] + _Noise.of(_energies(difference), MANTISSA_BITS[torch.bfloat16]))
    for noise in noises:
        try:
            return _factors(difference, rank, limit, noise, forced)
        except FullRank as error:
            failure = error
    assert failure is not None
    raise failure


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same in the format of one of them: of float16 and bfloat16, each loses something."""
    return any(torch.equal(a.to(dtype), b.to(dtype)) for dtype in {a.dtype, b.dtype})


@dataclass(frozen=True)
class _Noise:
    """The rounding noise of a matrix: its expected Frobenius norm, squared, and a bound of its singular values."""

    energy: float
    edge: float

    @classmethod
    def of(cls, energies: tuple[float, float, float], bits: int) -> _Noise:
        total, row, column = (NOISE * 4.0**-bits * energy for energy in energies)
        return cls(total, MARGIN * (math.sqrt(row) + math.sqrt(column)))

    def __add__(self, other: _Noise) -> _Noise:
        return _Noise(self.energy + other.energy, self.edge + other.edge)


def _energies(weight: Tensor) -> tuple[float, float, float]:
    """Sum of squares of all numbers, of the largest row and of the largest column."""
    columns, largest = torch.zeros(weight.shape[1], dtype=torch.float64), 0.0
    for piece in _row_pieces(weight):
        squares = piece.float().square()
        columns += squares.sum(0)
        largest = max(largest, float(squares.sum(1).max()))
    return float(columns.sum()), largest, float(columns.max())


def _row_pieces(weight: Tensor) -> Iterator[Tensor]:
    return iter(weight.split(max(1, _CHUNK // weight.shape[1])))


def _factors(difference: Tensor, rank: int, limit: int, noise: _Noise, forced: bool) -> LowRank:
    left, values, right, components = *_svd(difference, rank + OVERSAMPLING), rank + OVERSAMPLING
    while True:
        threshold = max(noise.edge, RELATIVE * float(values[0]))
        present = int((values > threshold).sum())
        if present > limit and not forced:
            raise FullRank(present, limit)
        if forced or present < len(values) or len(values) == min(difference.shape):
            break
        components *= 2
        left, values, right = _svd(difference, components)
    kept = min(rank if forced else max(rank, present), len(values))
    root = values[:kept].sqrt()
    factors = (left[:, :kept] * root).float(), (root[:, None] * right[:kept]).float()
    norm, residual = _norm(difference), _residual(difference, *factors)
    return LowRank(*factors, rank=present, norm=norm, residual=residual, noise=math.sqrt(noise.energy))


def _svd(matrix: Tensor, components: int) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors (O, K), values (K,) and vectors (K, I): all of a small matrix, the first of a large one."""
    if min(matrix.shape) <= max(EXACT_SIDE, components) or matrix.numel() <= EXACT_SIZE:
        return torch.linalg.svd(matrix.double(), full_matrices=False)
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(matrix @ torch.randn(matrix.shape[1], components, generator=generator)).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    left, values, right = torch.linalg.svd((basis.T @ matrix).double(), full_matrices=False)
    return basis.double() @ left, values, right


def _norm(matrix: Tensor) -> float:
    return math.hypot(*(float(torch.linalg.vector_norm(piece)) for piece in _row_pieces(matrix)))


def _residual(difference: Tensor, left: Tensor, right: Tensor) -> float:
    """Norm of difference - left @ right."""
    norms, start = [], 0
    for piece in _row_pieces(difference):
        rest = torch.addmm(piece, left[start : start + len(piece)], right, alpha=-1)
        norms.append(float(torch.linalg.vector_norm(rest)))
        start += len(piece)
    return math.hypot(*norms)
