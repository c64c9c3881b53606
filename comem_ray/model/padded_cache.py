"""Keys and values of rows of different lengths, padded on the left to one number of columns.

All rows end in the same column, so a new token is one more column for each. Rows join and leave between two tokens;
columns that only hold padding are cut off when rows leave. Knows nothing of tokens, positions or answers.

Shapes: B rows, C columns (of the longest row), H heads of keys and values, d width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 64
"""Columns that are reserved when a row of columns is full: the cache is copied once per 64 tokens, not per token."""


class PaddedCache:
    """The cache of rows of `lengths` columns each. `layers` goes to the language model as `past_key_values`."""

    def __init__(self, lengths: Sequence[int]):
        self.lengths = list(lengths)
        self.layers = Cache(layer_class_to_replicate=_Layer)

    @property
    def columns(self) -> int:
        return max(self.lengths, default=0)

    @property
    def cells(self) -> int:
        """Rows times columns, padding included."""
        return len(self.lengths) * self.columns

    def grow(self) -> None:
        """Counts one more column for every row. The next forward pass fills it."""
        self.lengths = [length + 1 for length in self.lengths]

    def mask(self, device: torch.device) -> Tensor | None:
        """Which columns are real: (B, C) bool, or None where no row has padding."""
        if min(self.lengths) == self.columns:
            return None
        first = torch.tensor([self.columns - length for length in self.lengths], device=device)
        return torch.arange(self.columns, device=device) >= first[:, None]

    def keep(self, rows: Sequence[int]) -> None:
        """Leaves out all rows but these (at least one), and the columns that none of them needs. Frees their memory."""
        lengths = [self.lengths[row] for row in rows]
        for layer in self._layers():
            layer.keep(rows, max(lengths))
        self.lengths = lengths

    def join(self, other: PaddedCache) -> None:
        """Appends the rows of `other`, which is used up. An exception leaves this cache as it was.

        Goes layer by layer, so that one layer is in memory twice, not the whole cache.
        """
        columns, rows, before = max(self.columns, other.columns), len(self.lengths), self.columns
        joined: list[_Layer] = []
        try:
            for layer, others in zip(self._layers(), other._layers(), strict=True):
                layer.join(others, columns)
                joined.append(layer)
        except BaseException:
            for layer in joined:
                layer.narrow(rows, before)
            raise
        self.lengths += other.lengths

    def _layers(self) -> list[_Layer]:
        return self.layers.layers  # type: ignore[return-value]


class _Layer(DynamicLayer):
    """One layer's keys and values (B, H, C, d): views of larger tensors, which have room for columns to come."""

    keys: Tensor  # type: ignore[assignment]
    values: Tensor  # type: ignore[assignment]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends columns (B, H, new, d) and returns all."""
        if not self.is_initialized:  # the prompts: kept as they are, for what will join other rows needs no room yet
            self.lazy_initialization(key_states, value_states)
            self._hold(key_states, value_states, key_states.shape[2])
            return key_states, value_states
        old, new = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if new > self._keys.shape[2]:
            keys, values = (_padded([tensor], new + ROOM, old) for tensor in (self.keys, self.values))
            self._hold(keys, values, old)
        self._keys[:, :, old:new] = key_states
        self._values[:, :, old:new] = value_states
        self._hold(self._keys, self._values, new)
        return self.keys, self.values

    def _hold(self, keys: Tensor, values: Tensor, columns: int) -> None:
        self._keys, self._values = keys, values
        self.keys, self.values = keys[:, :, :columns], values[:, :, :columns]

    def keep(self, rows: Sequence[int], columns: int) -> None:
        index = torch.tensor(rows, device=self.keys.device)
        keys, values = (tensor[:, :, -columns:].index_select(0, index) for tensor in (self.keys, self.values))
        self._hold(keys, values, columns)

    def join(self, other: _Layer, columns: int) -> None:
        keys = _padded([self.keys, other.keys], columns + ROOM, columns)
        values = _padded([self.values, other.values], columns + ROOM, columns)
        self._hold(keys, values, columns)
        del other.keys, other.values, other._keys, other._values  # freed here, one layer at a time

    def narrow(self, rows: int, columns: int) -> None:
        """Only the first rows and the last columns, without a copy."""
        keys, values = self.keys[:rows, :, -columns:], self.values[:rows, :, -columns:]
        self._hold(keys, values, columns)


def _padded(tensors: Sequence[Tensor], size: int, end: int) -> Tensor:
    """Tensors (B, H, C, d) of different B and C in one (sum of B, H, size, d): each ends at column `end`.

    The rest is zeros: what is masked counts zero times its value, and zero times a stray NaN would be NaN.
    """
    shape = [sum(len(tensor) for tensor in tensors), tensors[0].shape[1], size, tensors[0].shape[3]]
    out, row = tensors[0].new_zeros(shape), 0
    for tensor in tensors:
        out[row : row + len(tensor), :, end - tensor.shape[2] : end] = tensor
        row += len(tensor)
    return out
