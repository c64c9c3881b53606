"""What the reasoner answers: a question, what its mode puts before it, and how its answer is drawn. Knows no model.

Shapes: K items, Q memory vectors per item, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL.Image import Image
from torch import Tensor

from comem_ray.model.decoding import Sampling
from comem_ray.model.sequences import ImageFeatures
from comem_ray.prompts import Mode, Turn


class PromptTooLong(ValueError):
    """A prompt, memory included, that exceeds `reasoner.max_prompt_tokens`."""


@dataclass(frozen=True)
class Prompt:
    """A question with the input of its mode: `items` (text, image) in rag, `memory` (K, Q, D) in memory mode.

    Both are best first. The reasoner applies the configured item order. `sampling` None is the configuration's.
    """

    text: str
    image: Image | ImageFeatures | Sequence[Image | ImageFeatures] | None = None
    mode: Mode = "none"
    items: Sequence[tuple[str, Image]] = field(default_factory=tuple)
    memory: Tensor | None = None
    max_new_tokens: int | None = None
    system: str | None = None
    history: Sequence[Turn] = ()
    sampling: Sampling | None = None
