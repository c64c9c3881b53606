"""The number of tokens of a prompt, from its text and the sizes of its images alone: no weights, no pixels.

Tokenizer, limits of pixels and the shape of prompts are those of the backbone, so the numbers are the reasoner's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from PIL.Image import Image
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

from comem_ray.config import BackboneConfig
from comem_ray.model.checkpoint import checkpoint_folder
from comem_ray.model.sequences import ImageFeatures, Sequencer
from comem_ray.prompts import question_prompt


class TokenCounter:
    """Counts tokens as the backbone of `config` would. Loads its tokenizer and image processor."""

    def __init__(self, config: BackboneConfig):
        folder = checkpoint_folder(config.model)
        limits = {"item": config.item_pixels, "question": config.question_pixels}
        self._sequencer = Sequencer(
            AutoTokenizer.from_pretrained(folder),
            AutoImageProcessor.from_pretrained(folder),
            AutoConfig.from_pretrained(folder),
            limits,
        )

    def prompt(self, text: str, image: Image | None, items: Sequence[tuple[str, Image]] = ()) -> int:
        """Tokens of a question's prompt, with `items` before it in mode rag; memory is not counted.

        Raises ValueError for an image that the image processor cannot take.
        """
        sized = [(item_text, self._features(item_image, "item")) for item_text, item_image in items]
        own = None if image is None else self._features(image, "question")
        return len(self._sequencer.sequence(question_prompt(text, own, sized, chat=self._sequencer.chat)))

    def answer(self, text: str) -> int:
        """Tokens of an answer and the end of its turn."""
        return len(self._sequencer.answer_ids(text))

    def _features(self, image: Image, role: Literal["item", "question"]) -> ImageFeatures:
        """Stands for the image: its grid, without tokens."""
        return ImageFeatures(torch.empty(0), self._sequencer.image_grid(role, image.size))
