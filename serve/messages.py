"""What the deployments send one another: encoded images and plain arrays, never pixels or tensors.

Shapes: K items, Q memory vectors per item, D width, C width of CLIP.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from comem_ray.prompts import Mode, Sampling

if TYPE_CHECKING:  # the processes that read them load these
    from comem_ray.knowledge.live.items import LiveItem
    from comem_ray.knowledge.live.journal import Changes

By = Literal["image", "text", "both"]


@dataclass(frozen=True)
class Generations:
    """What is served: the generation of each folder of stages, and the last change (`live`) that its items hold."""

    folders: dict[str, str]
    live: int = 0


@dataclass(frozen=True)
class Refusal:
    """A reply that says what of the request is wrong, or (`status` 429, 500 and above) why it cannot be answered.

    A value, not an exception: no traceback, no log of an error. `retry_after_s`: when the same request may succeed.
    """

    type: str
    message: str
    field: str | None = None
    status: int = 422
    retry_after_s: float | None = None


@dataclass(frozen=True)
class TurnMessage:
    """An earlier turn of a conversation; images are encoded."""

    role: Literal["user", "assistant"]
    text: str
    images: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class QuestionRequest:
    """A question in any of the API's forms, checked: what /v1/answer and /v1/chat/completions become.

    Retrieval compares `question` and the last image of the conversation. None stands for the configuration's value.
    """

    question: str
    images: list[bytes]
    mode: Mode
    top_k: int | None = None
    language: str | None = None
    max_new_tokens: int | None = None
    system: str | None = None
    history: list[TurnMessage] = field(default_factory=list)
    sampling: Sampling | None = None
    timeout_s: float | None = None

    @property
    def last_image(self) -> bytes | None:
        """The image that the question is about: the last one of the last turn that has one."""
        turns = [t.images for t in self.history if t.role == "user"] + [self.images]
        return next((images[-1] for images in reversed(turns) if images), None)


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
class ItemHit:
    """A hit. `live`: the item is not in the shards, but in the journal."""

    item_id: str
    score: float
    live: bool = False


@dataclass(frozen=True)
class SearchReply:
    """Hits, best first, of the index of these generations."""

    hits: list[ItemHit]
    generations: Generations


@dataclass(frozen=True)
class Write:
    """A change to the knowledge. `replaces`: ids that must exist. `in_shards`: those of its ids that the shards hold.

    `key` is the idempotency key of its caller, `request` a digest of what was sent with it.
    """

    puts: list[LiveItem] = field(default_factory=list)
    deletes: list[str] = field(default_factory=list)
    replaces: list[str] = field(default_factory=list)
    in_shards: list[str] = field(default_factory=list)
    key: str | None = None
    request: str = ""


@dataclass(frozen=True)
class ChangesReply:
    """What a retriever must know before it searches: changes (None: there never are any), generations served now.

    Changes up to the number `forgotten` are in the shards of those generations, and nowhere else any more.
    """

    changes: Changes | None
    generations: Generations
    forgotten: int = 0


@dataclass(frozen=True)
class ReasonerRequest:
    """A question to the reasoner. Mode rag has `items` (text, encoded image), memory has packed `memory` (K, Q, D).

    `caller` is whose turn it is; `timeout_s` is what is left of the request's time.
    """

    question: str
    images: list[bytes]
    mode: Mode
    max_new_tokens: int | None = None
    items: list[tuple[str, bytes]] = field(default_factory=list)
    memory: np.ndarray | None = None
    system: str | None = None
    history: list[TurnMessage] = field(default_factory=list)
    sampling: Sampling | None = None
    timeout_s: float | None = None
    caller: str = ""


@dataclass(frozen=True)
class ReasonerReply:
    """The reasoner's answer. Plain, so that the ingress need not import the model to read it."""

    answer: str
    prompt_tokens: int
    memory_vectors: int
    completion_tokens: int
    finish_reason: Literal["stop", "length"] = "stop"


def pack_memory(memory: Tensor) -> np.ndarray:
    """bfloat16 as int16: numpy has no bfloat16, and an array crosses processes without a copy."""
    return memory.contiguous().view(torch.int16).numpy()


def unpack_memory(memory: np.ndarray) -> Tensor:
    """The tensor of `pack_memory`. Copied, for what arrives from another process is read-only."""
    return torch.from_numpy(memory.copy()).view(torch.bfloat16)
