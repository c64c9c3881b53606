"""From the parts of a prompt to the input tensors of a backbone.

How an image is cut, and which tokens stand for it, is the family's. No text of items and questions becomes a control
token (comem_ray.model.text_tokens).

Shapes: B sequences, L tokens of the longest, P patches (or tiles) of all images, T tokens of an image, D width (of
image tokens: wider where the family's language model takes several vectors for one), G numbers of a grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from comem_ray.config import PixelLimitsConfig
from comem_ray.model.families import family_of
from comem_ray.model.text_tokens import TextTokens
from comem_ray.prompts import ControlText, ImagePart, PlainText, PromptPart, answer_parts


@dataclass(frozen=True)
class ImageFeatures:
    """An encoded image: the vision tower's tokens. It may take the place of an image in a prompt."""

    tokens: Tensor  # (T, D)
    grid: list[int]  # (G); Qwen: [1, patch rows, patch columns]


@dataclass(frozen=True)
class TokenSequence:
    """One tokenised prompt. `memory` is the number of placeholder tokens before it."""

    ids: list[int]
    pixels: list[Tensor | ImageFeatures]  # one per image: (patches or tiles, ...) float32, or tokens
    grids: list[list[int]]  # one per image: (G) numbers, the family's
    memory: int = 0

    def __len__(self) -> int:
        return self.memory + len(self.ids)


@dataclass(frozen=True)
class Batch:
    """Padded sequences, ready for the backbone."""

    input_ids: Tensor  # (B, L) int64
    attention_mask: Tensor  # (B, L) int64, 1 on real tokens
    token_types: Tensor  # (B, L) int32, 1 on image tokens
    memory_mask: Tensor  # (B, L) bool, true on the placeholders of memory
    pixel_values: Tensor | None  # (P, ...) float32, of the images still to be encoded
    grids: Tensor | None  # (images, G) int64, of all images
    image_features: list[ImageFeatures | None]  # one per image; None for an image in pixel_values


class Sequencer:
    """Tokenises prompts and turns their images into patches."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Any,
        settings: Any,
        limits: Mapping[str, PixelLimitsConfig],
    ):
        """`settings` is the checkpoint's config.json, `limits` those of an "item" and of a "question".

        Raises ConfigError for limits that the family cannot keep.
        """
        self.tokenizer, self.image_processor, self.settings = tokenizer, image_processor, settings
        self.family = family_of(settings)
        self.chat = self.family.chat(settings)
        self.image_token_id: int = settings.image_token_id
        self.options = {
            role: self.family.options(image_processor, settings, limit, f"{role}_pixels")
            for role, limit in limits.items()
        }
        self.text = TextTokens(tokenizer)
        (self.turn_end_id,) = self.control_ids(self.chat.end_token)
        # Any text token will do: its embedding is replaced, its position is that of text.
        self.placeholder_id = self.pad_id = self.turn_end_id

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of the text of an item or a question; control tokens never occur among them."""
        return self.text.plain(text)

    def control_ids(self, text: str) -> list[int]:
        """Token ids of our own text, control tokens included."""
        return self.text.control(text)

    def answer_ids(self, text: str) -> list[int]:
        """Token ids of an answer as it follows its prompt, with the end of its turn."""
        parts = answer_parts(text, self.chat)
        return self.text.run([p for p in parts if not isinstance(p, ImagePart)], first=False, continues=True)

    def sequence(self, parts: Sequence[PromptPart], memory: int = 0) -> TokenSequence:
        """Tokenises `parts`, images resized within the limits of their role. `memory` placeholders come first."""
        ids: list[int] = []
        pixels: list[Tensor | ImageFeatures] = []
        grids: list[list[int]] = []
        run: list[ControlText | PlainText] = []
        for part in parts:
            if not isinstance(part, ImagePart):
                run.append(part)
                continue
            image, grid = self._image(part)
            pixels.append(image)
            grids.append(grid)
            for placeholder in self.family.placeholders(self.settings, grid):
                if isinstance(placeholder, str):
                    run.append(ControlText(placeholder))
                    continue
                ids += self.text.run(run, first=not ids)
                ids += [self.image_token_id] * placeholder
                run = []
        ids += self.text.run(run, first=not ids)
        return TokenSequence(ids, pixels, grids, memory)

    def image_grid(self, role: str, size: tuple[int, int]) -> list[int]:
        """The grid of an image of (width, height), as `sequence` would cut it, without its pixels."""
        return self.family.grid(self.image_processor, self.settings, size, self.options[role])

    def _image(self, part: ImagePart) -> tuple[Tensor | ImageFeatures, list[int]]:
        if isinstance(part.image, ImageFeatures):
            return part.image, part.image.grid
        return self.family.cut(self.image_processor, self.settings, part.image, self.options[part.role])

    def batch(self, sequences: Sequence[TokenSequence], padding: Literal["left", "right"]) -> Batch:
        """Pads sequences to one length: on the left for decoding, on the right for encoding."""
        rows = [torch.tensor([self.placeholder_id] * s.memory + s.ids) for s in sequences]
        input_ids = pad_sequence(rows, batch_first=True, padding_value=self.pad_id, padding_side=padding)
        lengths = torch.tensor([len(s) for s in sequences])[:, None]
        position = torch.arange(input_ids.shape[1])[None]
        if padding == "left":
            position = position - (input_ids.shape[1] - lengths)
        real = (position >= 0) & (position < lengths)
        memory = real & (position < torch.tensor([s.memory for s in sequences])[:, None])
        images = [p for s in sequences for p in s.pixels]
        pixels = [p for p in images if not isinstance(p, ImageFeatures)]
        grids = [g for s in sequences for g in s.grids]
        return Batch(
            input_ids=input_ids,
            attention_mask=real.long(),
            token_types=((input_ids == self.image_token_id) & real).int(),
            memory_mask=memory,
            pixel_values=torch.cat(pixels) if pixels else None,
            grids=torch.tensor(grids) if grids else None,
            image_features=[p if isinstance(p, ImageFeatures) else None for p in images],
        )
