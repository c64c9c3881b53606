"""What goes into the front door and comes out of it: a question; an answer with its sources, usage and timings.

`comem_ray.Pipeline` (in this process) and `comem_ray.Client` (over HTTP) share these types. Loads no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

Mode = Literal["none", "rag", "memory"]


@dataclass(frozen=True)
class Question:
    """A question, perhaps about an image. `k` and `language` are of the retrieved items; None: the configuration's."""

    text: str
    image: str | Path | bytes | Image | None = None
    mode: Mode = "memory"
    k: int | None = None
    language: str | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class Source:
    """A retrieved knowledge item. `score` is a cosine similarity; `image`, encoded bytes, is there if asked for."""

    item_id: str
    title: str
    text: str
    score: float
    image_url: str | None = None
    image: bytes | None = None


@dataclass(frozen=True)
class Usage:
    """Tokens of an answer. Image tokens count as prompt tokens, memory vectors do not."""

    prompt_tokens: int
    memory_vectors: int
    completion_tokens: int


@dataclass(frozen=True)
class Answer:
    """The text, the items it may rest on (best first), what it took in tokens, and milliseconds per stage."""

    text: str
    mode: Mode
    sources: list[Source]
    usage: Usage
    timings_ms: dict[str, float] = field(default_factory=dict)


class AnswerStream:
    """An answer on its way: iterate over pieces of its text; afterwards `answer` is the whole."""

    def __init__(self, pieces: Iterator[str | Answer]):
        self._pieces = pieces
        self._answer: Answer | None = None

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            if isinstance(piece, Answer):
                self._answer = piece
            else:
                yield piece

    @property
    def answer(self) -> Answer:
        """The whole answer. Raises RuntimeError before the last piece was taken."""
        if self._answer is None:
            raise RuntimeError("the answer is not complete: iterate over the stream to its end first")
        return self._answer
