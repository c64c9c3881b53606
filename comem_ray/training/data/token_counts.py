"""The number of tokens of a prompt, from its text and the sizes of its images alone: no weights, no pixels.

Tokenizer, limits of pixels and the shape of prompts are those of the backbone, so the numbers are the reasoner's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL.Image import Image
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

from comem_ray.config import BackboneConfig
from comem_ray.model.checkpoint import checkpoint_folder
from comem_ray.model.sequences import Sequencer
from comem_ray.prompts import END, ControlText, ImagePart, PlainText, PromptPart, question_prompt


class TokenCounter:
    """Counts tokens as the backbone of `config` would. Loads its tokenizer and image processor."""

    def __init__(self, config: BackboneConfig):
        folder = checkpoint_folder(config.model)
        self._processor = AutoImageProcessor.from_pretrained(folder)
        self._limits = {"item": config.item_pixels, "question": config.question_pixels}
        image_token = AutoConfig.from_pretrained(folder).image_token_id
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self._sequencer = Sequencer(tokenizer, self._processor, image_token, self._limits)

    def prompt(self, text: str, image: Image | None, items: Sequence[tuple[str, Image]] = ()) -> int:
        """Tokens of a question's prompt, with `items` before it in mode rag; memory is not counted.

        Raises ValueError for an image that the image processor cannot take.
        """
        return sum(self._count(part) for part in question_prompt(text, image, items))

    def answer(self, text: str) -> int:
        """Tokens of an answer and the end of its turn."""
        return sum(self._count(part) for part in (PlainText(text), END))

    def _count(self, part: PromptPart) -> int:
        if isinstance(part, ControlText):
            return len(self._sequencer.control_ids(part.text))
        if isinstance(part, PlainText):
            return len(self._sequencer.plain_ids(part.text))
        return self._image_tokens(part)

    def _image_tokens(self, part: ImagePart) -> int:
        limits, default = self._limits[part.role], self._processor.size
        pixels = {
            "min_pixels": limits.min or default["shortest_edge"],
            "max_pixels": limits.max or default["longest_edge"],
        }
        width, height = part.image.size
        patches: int = self._processor.get_number_of_image_patches(height, width, pixels)
        return patches // self._processor.merge_size**2
