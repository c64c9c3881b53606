"""What the deployments send one another: encoded images and plain arrays, never pixels or tensors.

Shapes: K items, Q memory vectors per item, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from comem_ray.prompts import Mode

if TYPE_CHECKING:
    from comem_ray.model.decoding import Sampling

By = Literal["image", "text", "both"]
Hits = list[tuple[str, float]]  # item_id and score, best first


@dataclass(frozen=True)
class Refusal:
    """A reply that says what of the request is wrong, or (`status` 500 and above) why this service cannot answer it.

    A value, not an exception: no traceback, no log of an error.
    """

    type: str
    message: str
    field: str | None = None
    status: int = 422


@dataclass(frozen=True)
class Search:
    """A request to the retriever: the `k` items nearest to an encoded image, a text, or both."""

    image: bytes | None
    text: str | None
    k: int
    by: By
    language: str | None
    text_weight: float | None


@dataclass(frozen=True)
class TurnMessage:
    """An earlier turn of a conversation. Its images, encoded, come before its text."""

    role: Literal["user", "assistant"]
    text: str
    images: list[bytes]


@dataclass(frozen=True)
class QuestionRequest:
    """What a request to /v1/answer or /v1/chat/completions asks for, checked.

    `images`, encoded, are those of the question itself. None: the configuration's value (`system`: the prompt's own).
    """

    question: str
    images: list[bytes]
    mode: Mode
    top_k: int | None
    language: str | None
    max_new_tokens: int | None
    system: str | None = None
    history: list[TurnMessage] = field(default_factory=list)
    sampling: Sampling | None = None
    timeout_s: float | None = None


@dataclass(frozen=True)
class ReasonerRequest:
    """A question to the reasoner. Mode rag has `items` (text, encoded image), memory has packed `memory` (K, Q, D)."""

    question: str
    image: bytes | None
    mode: Mode
    max_new_tokens: int | None
    items: list[tuple[str, bytes]] = field(default_factory=list)
    memory: np.ndarray | None = None


@dataclass(frozen=True)
class ReasonerReply:
    """The reasoner's answer. Plain, so that the ingress need not import the model to read it."""

    answer: str
    prompt_tokens: int
    memory_vectors: int
    completion_tokens: int


def pack_memory(memory: Tensor) -> np.ndarray:
    """bfloat16 as int16: numpy has no bfloat16, and an array crosses processes without a copy."""
    return memory.contiguous().view(torch.int16).numpy()


def unpack_memory(memory: np.ndarray) -> Tensor:
    """The tensor of `pack_memory`. Copied, for what arrives from another process is read-only."""
    return torch.from_numpy(memory.copy()).view(torch.bfloat16)
