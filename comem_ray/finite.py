"""Numbers of a model that are not finite (NaN or infinity), and the precision that would be right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class NotFinite(ValueError):
    """A model's numbers are NaN or infinite. No fault of the image or text, mostly: another precision is needed.

    `positions` are the indexes, into the inputs of the call, of those whose results are not finite.
    """

    reason = "not_finite"

    def __init__(self, message: str, positions: Sequence[int] = ()):
        super().__init__(message)
        self.positions = list(positions)


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor of any shape and dtype holds neither NaN nor infinity. Makes no copy of it."""
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return True
    low, high = tensor.detach().aminmax()  # a NaN anywhere makes both NaN
    return bool(low.isfinite() & high.isfinite())


def finite_rows(rows: Tensor) -> Tensor:
    """Of rows (n, ...), which are finite: (n,) bool on the same device."""
    return rows.flatten(1).isfinite().all(dim=1)


def right_precision(dtype: torch.dtype, field: str) -> str:
    """What to do about numbers that are not finite in `dtype`, which the configuration's `field` chose."""
    if dtype == torch.float16:
        return f"float16 ends at 65,504, set {field} to bfloat16 or float32"
    if dtype == torch.bfloat16:
        return f"try {field}: float32; if they stay, the weights or the input are damaged"
    return "no precision is wider, so the weights or the input are damaged: copy or download the weights again"


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a precision as the configuration has it: `bfloat16`."""
    return str(dtype).removeprefix("torch.")
