"""From the parts of a prompt to the input tensors of a backbone.

The text of items and questions is tokenised by a copy of the tokenizer without added tokens, so that no part of it can
become a control token. Each part is tokenised on its own.

Shapes: B sequences, L tokens of the longest, P patches of all images, T tokens of an image, D width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from comem_ray.config import PixelLimitsConfig
from comem_ray.prompts import TURN_END, ControlText, ImagePart, PlainText, PromptPart


@dataclass(frozen=True)
class ImageFeatures:
    """An encoded image: the vision tower's tokens. It may take the place of an image in a prompt."""

    tokens: Tensor  # (T, D)
    grid: list[int]  # [1, patch rows, patch columns]


@dataclass(frozen=True)
class TokenSequence:
    """One tokenised prompt. `memory` is the number of placeholder tokens before it."""

    ids: list[int]
    pixels: list[Tensor | ImageFeatures]  # one per image: (patches, channels * 2 * patch * patch) float32, or tokens
    grids: list[list[int]]  # one per image: [1, patch rows, patch columns]
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
    grids: Tensor | None  # (images, 3) int64, of all images
    image_features: list[ImageFeatures | None]  # one per image; None for an image in pixel_values


class Sequencer:
    """Tokenises prompts and turns their images into patches."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Any,
        image_token_id: int,
        limits: Mapping[str, PixelLimitsConfig],
    ):
        self.tokenizer, self.image_processor, self.image_token_id = tokenizer, image_processor, image_token_id
        self.limits = limits  # "item" and "question"
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        self._plain = Tokenizer.from_str(json.dumps(backend | {"added_tokens": []}))
        (self.turn_end_id,) = self.control_ids(TURN_END)
        # Any text token will do: its embedding is replaced, its position is that of text.
        self.placeholder_id = self.pad_id = self.turn_end_id

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of the text of an item or a question; control tokens never occur among them."""
        return self._plain.encode(text, add_special_tokens=False).ids

    def control_ids(self, text: str) -> list[int]:
        """Token ids of our own text, control tokens included."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def sequence(self, parts: Sequence[PromptPart], memory: int = 0) -> TokenSequence:
        """Tokenises `parts`, images resized within the limits of their role. `memory` placeholders come first."""
        ids: list[int] = []
        pixels: list[Tensor | ImageFeatures] = []
        grids: list[list[int]] = []
        for part in parts:
            if isinstance(part, ControlText):
                ids += self.control_ids(part.text)
            elif isinstance(part, PlainText):
                ids += self.plain_ids(part.text)
            else:
                image, grid = self._image(part)
                ids += [self.image_token_id] * (grid[0] * grid[1] * grid[2] // self.image_processor.merge_size**2)
                pixels.append(image)
                grids.append(grid)
        return TokenSequence(ids, pixels, grids, memory)

    def _image(self, part: ImagePart) -> tuple[Tensor | ImageFeatures, list[int]]:
        if isinstance(part.image, ImageFeatures):
            return part.image, part.image.grid
        limits, default = self.limits[part.role], self.image_processor.size
        size = {
            "shortest_edge": limits.min or default["shortest_edge"],
            "longest_edge": limits.max or default["longest_edge"],
        }
        patches = self.image_processor(images=[part.image], size=size, return_tensors="pt")
        return patches["pixel_values"], patches["image_grid_thw"][0].tolist()

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
