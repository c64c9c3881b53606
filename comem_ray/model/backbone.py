"""The backbone: a frozen VLM of a known family and any size, run on `inputs_embeds`.

Knows token ids, images and positions, but nothing of knowledge items, answers, or files other than its checkpoint.
No forward pass of transformers is copied: this module builds the embeddings, the stock position code gives the
positions, and the stock language model does the rest. What differs between families is in comem_ray.model.families.

Shapes: B sequences, L tokens, D width, M memory vectors of the whole batch, A axes of positions, C cached columns. W is
D, or a multiple of it where image tokens carry vectors for several layers of the language model (Qwen3-VL).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoModelForImageTextToText, GenerationConfig

from comem_ray.config import BackboneConfig, ConfigError
from comem_ray.model.checkpoint import (
    UNUSABLE,
    checkpoint_config,
    checkpoint_folder,
    named_stop_ids,
    unusable,
    weight_files,
)
from comem_ray.model.families import Family, family_of
from comem_ray.model.module_names import current_name
from comem_ray.model.processors import load_image_processor, load_tokenizer
from comem_ray.model.sequences import Batch, Sequencer
from comem_ray.weights import Shapes, brief, require_finite, require_fit, tensor_shapes

log = logging.getLogger(__name__)

_ADVICE = "Want the weights that config.json describes, all of them: copy or download the checkpoint again"


@dataclass
class Backbone:
    """The stock model with its tokenizer and image processor."""

    model: Any  # the stock class for conditional generation
    sequencer: Sequencer
    device: torch.device

    @property
    def width(self) -> int:
        """D, the width of the language model."""
        return self.model.config.text_config.hidden_size

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def family(self) -> Family:
        """What the model's family differs in."""
        return family_of(self.model.config)

    @property
    def language_model(self) -> Any:
        """The stock language model, without its head."""
        return self.family.language_model(self.model)

    def image_features(self, batch: Batch) -> Tensor | None:
        """Image tokens of the whole batch (tokens, W), in order, or None without images."""
        if batch.grids is None:
            return None
        tokens = [None if f is None else f.tokens.to(self.device, self.dtype) for f in batch.image_features]
        missing = [n for n, t in enumerate(tokens) if t is None]
        if missing:
            assert batch.pixel_values is not None
            pixels, grids = batch.pixel_values.to(self.device, self.dtype), batch.grids[missing].to(self.device)
            encoded = self.family.features(self.model, pixels, grids)
            for n, image_tokens in zip(missing, encoded, strict=True):
                tokens[n] = image_tokens
        return torch.cat([t for t in tokens if t is not None])

    def embed(self, batch: Batch, images: Tensor | None, memory: Tensor | None = None) -> Tensor:
        """Input embeddings (B, L, W): token embeddings, with image tokens and memory (M, D) for the placeholders."""
        embeds = self.model.get_input_embeddings()(batch.input_ids.to(self.device))
        if images is not None:
            embeds = pad(embeds, (0, images.shape[-1] - embeds.shape[-1]))
            embeds = _scatter(embeds, batch.token_types == 1, images, "image tokens")
        if memory is not None:
            embeds = _scatter(embeds, batch.memory_mask, memory, "memory vectors")
        return embeds

    def positions(self, batch: Batch) -> Tensor:
        """Positions (A, B, L), int64: M-RoPE on 3 axes by the stock code, else 1. Memory counts as text in front."""
        return self.cpu_positions(batch).to(self.device)

    def cpu_positions(self, batch: Batch) -> Tensor:
        """The same on the CPU, for a process without a GPU that prepares batches for another."""
        return self.family.positions(self.model, batch)

    def hidden_states(self, batch: Batch, embeds: Tensor) -> Tensor:
        """Hidden states (B, L, D) of the last layer of the language model, after the final norm."""
        return self.run_layers(embeds, batch.attention_mask.to(self.device), self.positions(batch))

    def run_layers(self, embeds: Tensor, mask: Tensor | None, positions: Tensor, cache: Any = None) -> Tensor:
        """Hidden states (B, L, D) of embeddings (B, L, W) at positions (A, B, L), after the final norm.

        `mask` (B, L), or (B, C + L) with a cache of C columns, is true on real tokens; None: all are real. The keys and
        values of the new columns are added to `cache`.
        """
        return self.language_model(
            **self.family.inputs(embeds, self.width),
            attention_mask=mask,
            position_ids=positions if len(positions) > 1 else positions[0],
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state


def load_backbone(config: BackboneConfig, device: str = "cpu") -> Backbone:
    """Loads the checkpoint (safetensors), frozen and in evaluation mode.

    Of its generation_config.json, only the stop ids are kept: decoding is what the configuration says.

    Raises ConfigError if `config.model` is neither a folder nor a name on the hub, is of another family, or lacks a
    file. Raises ArtifactError if a file is damaged, or the weights do not fit the model or are not finite.
    """
    folder = checkpoint_folder(config.model)
    settings = checkpoint_config(folder)
    present: Shapes = {}
    for path in weight_files(folder):
        present |= tensor_shapes(path)
    rows = _refuse_other_shapes(folder, settings, present)
    family = family_of(settings)
    tokenizer = load_tokenizer(folder, rows, settings)
    processor = load_image_processor(folder, settings)
    limits = {"item": config.item_pixels, "question": config.question_pixels}
    sequencer = Sequencer(tokenizer, processor, settings, limits)
    model = _load_model(folder, config, device, present)
    model.eval().requires_grad_(False)
    family.prepare(model)
    parameters = model.num_parameters() / 1e6
    log.info("backbone %s: %s, %.1f M parameters, %s", config.model, settings.model_type, parameters, device)
    return Backbone(model, sequencer, torch.device(device))


def _refuse_other_shapes(folder: Path, settings: Any, present: Shapes) -> int:
    """Rows of the token embedding. Raises ArtifactError where a tensor has another shape than config.json says.

    Comes before any weight is loaded: a wrong config.json could otherwise ask for any amount of memory.
    """
    try:
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(settings)
    except (*UNUSABLE, RuntimeError) as error:
        raise unusable(folder, error) from error
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    common = {current: shape for name, shape in present.items() if (current := current_name(name)) in wanted}
    require_fit(folder, common, {name: wanted[name] for name in common}, _ADVICE)
    return model.get_input_embeddings().weight.shape[0]


def _load_model(folder: Path, config: BackboneConfig, device: str, present: Shapes) -> Any:
    """The model, of whose weights each is in the files: `present`. Raises ArtifactError where they are not all used."""
    stops = named_stop_ids(folder)
    try:
        pair: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=_dtype(config.precision, device),
            attn_implementation=config.attention,
            generation_config=GenerationConfig(eos_token_id=stops or None),
            use_safetensors=True,
            device_map=device,
            output_loading_info=True,
        )
    except ImportError as error:
        raise ConfigError(
            f"backbone.attention: {config.attention!r} cannot be used here ({brief(error)}): set it to 'sdpa'"
        ) from error
    model, loaded = pair
    names = set(model.state_dict())
    unexpected: list[str] = []
    if loaded["unexpected_keys"]:  # by the names of the files, where they can be told
        unexpected = [n for n in present if current_name(n) not in names] or list(loaded["unexpected_keys"])
    landed = dict.fromkeys(names - set(loaded["missing_keys"]), ())
    require_fit(folder, {**landed, **dict.fromkeys(unexpected, ())}, dict.fromkeys(names, ()), _ADVICE)
    require_finite(folder, model.named_parameters(), "backbone.precision")
    return model


def _dtype(precision: str, device: str) -> torch.dtype:
    if precision != "auto":
        return getattr(torch, precision)
    # Without these instructions a CPU emulates bfloat16: 1 GFLOP/s was measured, in place of 65.
    fast = device != "cpu" or bool({"avx512_bf16", "amx_bf16", "bf16"} & _cpu_flags())
    return torch.bfloat16 if fast else torch.float32


def _cpu_flags() -> set[str]:
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()


def _scatter(embeds: Tensor, mask_BL: Tensor, rows: Tensor, what: str) -> Tensor:
    placeholders = int(mask_BL.sum())
    if placeholders != len(rows):
        raise ValueError(f"the prompt has placeholders for {placeholders} {what}, got {len(rows)}")
    mask = mask_BL[..., None].to(embeds.device)
    rows = pad(rows.to(embeds.device, embeds.dtype), (0, embeds.shape[-1] - rows.shape[-1]))
    return embeds.masked_scatter(mask, rows)
