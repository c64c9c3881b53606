"""What goes into the front door and comes out of it: a question; an answer with its sources, usage and timings.

`comem_ray.Pipeline` (in this process) and `comem_ray.Client` (over HTTP) share these types. Loads no model.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

    from comem_ray.knowledge.items import Item

Mode = Literal["none", "rag", "memory"]
_PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")


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
    page_url: str | None = None


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


class AnswerStream(Iterator[str]):
    """The text of an answer piece by piece, as it is made. After the last piece, `answer` is the whole Answer."""

    def __init__(self, pieces: Iterable[str | Answer]):
        """`pieces` yields the text, and the Answer in the end."""
        self._pieces = iter(pieces)
        self._answer: Answer | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = next(self._pieces)
        while isinstance(piece, Answer):
            self._answer = piece
            piece = next(self._pieces)
        return piece

    @property
    def answer(self) -> Answer:
        """The whole answer. Raises RuntimeError before the last piece was taken."""
        if self._answer is None:
            raise RuntimeError("the answer is not there yet: take all pieces of the stream first")
        return self._answer


def make_sources(items: Sequence[Item], scores: Sequence[float]) -> list[Source]:
    """The sources of an answer: retrieved items, best first, with their scores."""
    return [
        Source(item.item_id, item.title, item.text, round(score, 6), item.image_url, item.image, item.page_url)
        for item, score in zip(items, scores, strict=True)
    ]


def image_bytes_of(image: str | Path | bytes | Image) -> bytes:
    """The encoded bytes of an image: those of a file, the bytes themselves, or a PIL image as PNG.

    Raises ValueError where a file cannot be read, or for another type.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, (str, Path)):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read the image {image}: {error.strerror}") from error
    return _png(image)


def _png(image: object) -> bytes:
    from PIL import ImageOps
    from PIL.Image import Image

    if not isinstance(image, Image):
        raise ValueError(f"image must be a path, bytes or a PIL image, not {type(image).__name__}")
    upright = ImageOps.exif_transpose(image)  # PNG would lose the note that a photograph lies on its side
    if upright.mode not in _PNG_MODES:
        upright = upright.convert("RGB")
    out = io.BytesIO()
    upright.save(out, "PNG")
    return out.getvalue()
