"""The adapter, which is the trained part: its folder, and the fingerprint of an encoder (a backbone with an adapter).

An adapter folder holds `lora/` (a PEFT folder, which `PeftModel.from_pretrained` loads), `qformer.safetensors` and
`adapter.json` (sizes, and the fingerprint of the backbone that it was trained on). No file is a pickle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from comem_ray.artifacts import ArtifactError, file_sha256, fingerprint, write_json
from comem_ray.config import AdapterConfig, Config, ConfigError
from comem_ray.home import home_hint, resolve
from comem_ray.model.backbone import Backbone
from comem_ray.model.checkpoint import checkpoint_fingerprint, checkpoint_folder
from comem_ray.model.lora import add_lora, load_lora
from comem_ray.model.qformer import QFormer
from comem_ray.prompts import MAX_TEXT_CHARS, item_turn

ADAPTER_FILES = ("adapter.json", "qformer.safetensors", "lora/adapter_config.json", "lora/adapter_model.safetensors")


@dataclass
class Adapter:
    """The trained part: the LoRA layers (inside the backbone, inactive unless enabled) and the Q-Former."""

    lora: PeftModel
    qformer: QFormer


def encoder_identity(config: Config) -> dict[str, Any]:
    """All that a memory depends on: backbone, adapter, pixel limits and prompt. Loads no weights.

    Precision and device are left out: they change the rounding of a memory, not its content.
    """
    template = [getattr(part, "text", None) for part in item_turn("", None)]  # type: ignore[arg-type]
    return {
        "backbone": checkpoint_fingerprint(checkpoint_folder(config.backbone.model)),
        "adapter": _adapter_identity(config.adapter),
        "item_pixels": config.backbone.item_pixels.model_dump(),
        "prompt": fingerprint([template, MAX_TEXT_CHARS]),
    }


def encoder_fingerprint(config: Config) -> str:
    """Digest (hex) of `encoder_identity`. Two encoders with the same fingerprint make the same memory."""
    return fingerprint(encoder_identity(config))


def _adapter_identity(config: AdapterConfig) -> dict[str, Any]:
    if config.path is None:
        return {"random": config.model_dump(exclude={"path", "lora_dropout"})}
    return adapter_files(resolve(config.path))


def adapter_files(folder: Path) -> dict[str, str]:
    """Digests of an adapter folder's files. Raises ConfigError if one is missing."""
    if missing := [n for n in ADAPTER_FILES if not (folder / n).is_file()]:
        raise ConfigError(f"{folder} is not an adapter folder: it lacks {', '.join(missing)}{home_hint(folder)}")
    return {name: file_sha256(folder / name) for name in ADAPTER_FILES}


def attach_adapter(config: AdapterConfig, backbone: Backbone, trainable: bool = False) -> Adapter:
    """Adds the adapter to `backbone`: trained weights from `config.path`, or seeded random ones if it is null.

    Raises ArtifactError if the adapter was trained on another backbone.
    """
    if config.path is None:
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            qformer = QFormer(backbone.width, **_sizes(config))
        adapter = Adapter(add_lora(backbone.model, config), qformer)
    else:
        _adapter_identity(config)  # raises, naming missing files
        adapter = _load(resolve(config.path), backbone, trainable)
    adapter.qformer.to(backbone.device, backbone.dtype).requires_grad_(trainable).train(trainable)
    adapter.lora.train(trainable)  # LoRA's dropout follows
    return adapter


def save_adapter(folder: Path, adapter: Adapter, backbone_fingerprint: str) -> None:
    """Writes an adapter folder. `backbone_fingerprint` is that of the checkpoint that it was trained on."""
    adapter.lora.save_pretrained(str(folder / "lora"), safe_serialization=True)
    weights = {k: v.detach().contiguous().cpu() for k, v in adapter.qformer.state_dict().items()}
    save_file(weights, folder / "qformer.safetensors")
    write_json(folder / "adapter.json", {"backbone": backbone_fingerprint, "qformer": adapter.qformer.sizes})


def _load(folder: Path, backbone: Backbone, trainable: bool) -> Adapter:
    stored = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
    present = checkpoint_fingerprint(Path(backbone.model.name_or_path))
    if stored["backbone"] != present:
        raise ArtifactError(
            f"{folder} was trained on backbone {stored['backbone'][:12]}, this one is {present[:12]}: "
            "name the backbone it was trained on, or train an adapter for this one"
        )
    qformer = QFormer(backbone.width, **stored["qformer"])
    qformer.load_state_dict(load_file(folder / "qformer.safetensors"))
    return Adapter(load_lora(backbone.model, folder / "lora", trainable), qformer)


def _sizes(config: AdapterConfig) -> dict[str, Any]:
    return {
        "queries": config.queries,
        "layers": config.qformer_layers,
        "heads": config.qformer_heads,
        "head_width": config.qformer_head_width,
    }
