"""What the families of backbones differ in, as one record. Knows no family.

Letters: B sequences, L tokens, A axes of positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from comem_ray.config import ConfigError, PixelLimitsConfig
from comem_ray.prompts import Chat

Options = dict[str, Any]
"""What the image processor is called with: the pixel limits as the family knows them."""

Grid = list[int]
"""Numbers that say how an image was cut. The number of its tokens follows from them."""

Placeholders = list[int | str]
"""An image in the prompt: numbers of image tokens, and control text between them."""

LINEARS = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
"""The Linears of a layer of the language models, as alternatives of a pattern."""


def no_change(model: Any) -> None:
    """Most families are used as they are."""


def embeddings_alone(embeds: Tensor, width: int) -> dict[str, Any]:
    """The input of a language model whose image tokens are one vector each."""
    return {"inputs_embeds": embeds}


def text_positions(model: Any, batch: Any) -> Tensor:
    """Positions (1, B, L), int64, that count tokens from 0; padding has 0. Memory counts as text."""
    return (batch.attention_mask.cumsum(-1) - 1).clamp(min=0)[None]


@dataclass(frozen=True)
class Family:
    """How the models of one `model_type` see images, and where their parts are.

    `options`, `cut`, `grid`, `placeholders` and `misfit` take the image processor and config.json of the checkpoint.
    """

    title: str
    image_token: str
    control: tuple[str, ...]  # control tokens of its images, beyond those of the chat format
    chat: Callable[[Any], Chat]  # of config.json
    language: str  # the language model, as an attribute of `model.model`
    vision: tuple[str, ...]  # vision tower and projector, likewise
    tower_layers: str  # the layers of the vision tower, likewise
    lora_targets: str  # matches whole names of modules: every Linear of language model, vision tower and projector

    # None, or a sentence on what of the image processor (first) does not fit config.json (second).
    misfit: Callable[[Any, Any], str | None]
    # Raises ConfigError for limits that the family cannot keep. The last argument names the field.
    options: Callable[[Any, Any, PixelLimitsConfig, str], Options]
    # Pixels and grid of an image. The pixels of several images are concatenated along their first axis.
    cut: Callable[[Any, Any, Image, Options], tuple[Tensor, Grid]]
    # The same grid of an image of (width, height), without its pixels.
    grid: Callable[[Any, Any, tuple[int, int], Options], Grid]
    placeholders: Callable[[Any, Grid], Placeholders]  # of config.json and a grid
    # Image tokens (tokens, D or more) of each image, of the model, pixels and grids (images, G).
    features: Callable[[Any, Tensor, Tensor], Sequence[Tensor]]

    positions: Callable[[Any, Any], Tensor] = text_positions  # (A, B, L) int64 of the model and a Batch, on the CPU
    inputs: Callable[[Tensor, int], dict[str, Any]] = embeddings_alone  # of the language model: embeddings, D
    prepare: Callable[[Any], None] = no_change  # of the loaded model, in place

    def language_model(self, model: Any) -> Any:
        """The stock language model without its head."""
        return getattr(model.model, self.language)

    def vision_layers(self, model: Any) -> nn.Module:
        """The layers of the vision tower, without projector."""
        layers: nn.Module = model.model.get_submodule(self.tower_layers)
        return layers

    def vision_modules(self, model: Any) -> list[nn.Module]:
        """Vision tower and projector."""
        return [getattr(model.model, name) for name in self.vision]


def lora_targets(*parts: tuple[str, str]) -> str:
    """The pattern of (modules below `model`, Linears in them), each a pattern of alternatives."""
    return "|".join(rf"model\.({modules})\.(.+\.)?({linears})" for modules, linears in parts)


def broken_limits(limits: PixelLimitsConfig, field: str, reason: str) -> ConfigError:
    """The refusal of pixel limits that a family cannot keep."""
    return ConfigError(
        f"backbone.{field}: this backbone cannot keep the limits {limits.min} to {limits.max}: {reason}. "
        f"Set {field} to {{min: null, max: null}}, or to limits that it can keep"
    )


def cat_last(parts: Sequence[Tensor]) -> Tensor:
    """Vectors of the same tokens, one after the other: (tokens, sum of widths)."""
    return torch.cat(list(parts), dim=-1)
