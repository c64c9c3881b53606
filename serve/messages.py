"""What travels between the deployments: encoded images and plain arrays, never pixels or tensors.

Shapes: K items, Q memory vectors an item, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from comem_ray.prompts import Mode

By = Literal["image", "text", "both"]


@dataclass(frozen=True)
class Refusal:
    """A reply that says what of the request is wrong. A value, not an exception: no traceback, no log of an error."""

    type: str
    message: str
    field: str | None = None


@dataclass(frozen=True)
class Search:
    """What the Retriever is asked: the `k` items nearest to an image (encoded), a text, or both."""

    image: bytes | None
    text: str | None
    k: int
    by: By
    language: str | None
    text_weight: float | None


@dataclass(frozen=True)
class Ask:
    """What the Reasoner is asked: `items` (text, encoded image) in mode rag, packed `memory` (K, Q, D) in memory."""

    question: str
    image: bytes | None
    mode: Mode
    max_new_tokens: int | None
    items: list[tuple[str, bytes]] = field(default_factory=list)
    memory: np.ndarray | None = None


@dataclass(frozen=True)
class Reply:
    """What the Reasoner answered. Plain, so that the ingress need not import the model to read it."""

    answer: str
    prompt_tokens: int
    memory_vectors: int
    completion_tokens: int


Hits = list[tuple[str, float]]  # item_id and score, best first


def packed(memory: Tensor) -> np.ndarray:
    """bfloat16 as int16: numpy has no bfloat16, and an array crosses processes without a copy."""
    return memory.contiguous().view(torch.int16).numpy()


def unpacked(memory: np.ndarray) -> Tensor:
    """The tensor of `packed`. Copied: what arrives from another process is read-only."""
    return torch.from_numpy(memory.copy()).view(torch.bfloat16)
