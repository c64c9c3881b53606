"""Some items of an index, to search among: one bit per item, which FAISS reads while it searches.

Of FAISS's selectors a bitmap costs a search least, and its cost does not grow with what is left out.

Letters: N items of the index.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np


@dataclass(frozen=True)
class Subset:
    """Some items of an index, `count` of them, to search among. Bit n of `bits` (uint8) stands for position n."""

    bits: np.ndarray
    count: int

    @classmethod
    def of(cls, mask: np.ndarray) -> Subset:
        """The items at which `mask` (N,) bool is true."""
        return cls(np.packbits(mask, bitorder="little"), int(mask.sum()))

    @cached_property
    def selector(self) -> Any:
        """FAISS's selector of these items. It reads `bits`."""
        return faiss.IDSelectorBitmap(self.bits)

    def without(self, positions: np.ndarray) -> Subset:
        """These items but those at `positions` (n,), which are distinct."""
        byte, bit = positions >> 3, (1 << (positions & 7)).astype(np.uint8)
        bits, lost = self.bits.copy(), np.count_nonzero(self.bits[byte] & bit)
        np.bitwise_and.at(bits, byte, ~bit)
        return Subset(bits, self.count - int(lost))
