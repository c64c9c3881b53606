"""Checkpoints: the backbone's folder, the adapter's folder, and the fingerprint of both.

An adapter folder holds `lora/` (a PEFT folder, loadable by `PeftModel.from_pretrained` alone), `qformer.safetensors`
and `adapter.json` (sizes, and the fingerprint of the backbone it was trained on). Nothing here is a pickle.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from peft import PeftModel
from safetensors.torch import load_file, save_file

from comem_ray.artifacts import ArtifactError, file_sha256, fingerprint, write_json
from comem_ray.config import Adapter as AdapterConfig
from comem_ray.config import Config, ConfigError, resolve
from comem_ray.model.lora import add_lora, load_lora
from comem_ray.model.qformer import QFormer
from comem_ray.prompts import item_turn
from comem_ray.schema import MAX_TEXT_CHARS

if TYPE_CHECKING:
    from comem_ray.model.backbone import Backbone

_PIECE = 1 << 20
_PIECES = 64


@dataclass
class Adapter:
    """What is trained: the LoRA layers (inside the backbone, off unless switched on) and the Q-Former."""

    lora: PeftModel
    qformer: QFormer


def checkpoint_folder(model: str) -> Path:
    """The folder of a checkpoint: `model` itself where it is one, else the snapshot of that hub name (fetched once).

    Raises ConfigError where there is neither.
    """
    if resolve(model).is_dir():
        return resolve(model)
    try:
        return Path(snapshot_download(model, allow_patterns=["*.safetensors", "*.json", "*.txt"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"backbone.model: {resolve(model)} is no folder, and no hub gave {model!r}: {error}"
        ) from error


def checkpoint_fingerprint(folder: Path) -> str:
    """Digest (hex) of a checkpoint: its config.json and its safetensors files.

    Of a file over 64 MB, its size and 64 pieces of 1 MB spread evenly over it are read: 16 GB take seconds, and a model
    that was trained further differs in every piece.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{folder} holds no .safetensors file")
    digests = {path.name: _sampled_sha256(path) for path in files}
    return fingerprint({"config": file_sha256(folder / "config.json"), "weights": digests})


def _sampled_sha256(path: Path) -> str:
    size = path.stat().st_size
    if size <= _PIECE * _PIECES:
        return file_sha256(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as f:
        for i in range(_PIECES):
            f.seek((size - _PIECE) * i // (_PIECES - 1))
            digest.update(f.read(_PIECE))
    return digest.hexdigest()


def encoder_identity(config: Config) -> dict[str, Any]:
    """All that a memory depends on: backbone, adapter, pixel limits and prompt. Loads no weights.

    Precision and device are not in it: they change the rounding of a memory, not what it says.
    """
    template = [getattr(part, "text", None) for part in item_turn("", None)]  # type: ignore[arg-type]
    return {
        "backbone": checkpoint_fingerprint(checkpoint_folder(config.backbone.model)),
        "adapter": _adapter_identity(config.adapter),
        "item_pixels": config.backbone.item_pixels.model_dump(),
        "prompt": fingerprint([template, MAX_TEXT_CHARS]),
    }


def encoder_fingerprint(config: Config) -> str:
    """Digest (hex) of `encoder_identity`: two encoders with the same one make the same memory."""
    return fingerprint(encoder_identity(config))


def _adapter_identity(config: AdapterConfig) -> dict[str, Any]:
    if config.path is None:
        return {"random": config.model_dump(exclude={"path", "lora_dropout"})}
    return adapter_files(resolve(config.path))


def adapter_files(folder: Path) -> dict[str, str]:
    """Digests of an adapter folder's files. Raises ConfigError where it is none."""
    names = ["adapter.json", "qformer.safetensors", "lora/adapter_config.json", "lora/adapter_model.safetensors"]
    if missing := [n for n in names if not (folder / n).is_file()]:
        raise ConfigError(f"{folder} is no adapter folder: {', '.join(missing)} missing")
    return {name: file_sha256(folder / name) for name in names}


def attach_adapter(config: AdapterConfig, backbone: Backbone, trainable: bool = False) -> Adapter:
    """Adds the adapter to `backbone`: trained weights from `config.path`, or seeded random ones where it is null.

    Raises ArtifactError where the adapter was trained on another backbone.
    """
    if config.path is None:
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            qformer = QFormer(backbone.width, **_sizes(config))
        adapter = Adapter(add_lora(backbone.model, config), qformer)
    else:
        _adapter_identity(config)  # names what is missing
        adapter = _load(resolve(config.path), backbone, trainable)
    adapter.qformer.to(backbone.device, backbone.dtype).requires_grad_(trainable).train(trainable)
    adapter.lora.train(trainable)  # LoRA's dropout follows
    return adapter


def save_adapter(folder: Path, adapter: Adapter, backbone_fingerprint: str) -> None:
    """Writes an adapter folder. `backbone_fingerprint` is that of the checkpoint it was trained on."""
    adapter.lora.save_pretrained(str(folder / "lora"), safe_serialization=True)
    weights = {k: v.detach().contiguous().cpu() for k, v in adapter.qformer.state_dict().items()}
    save_file(weights, folder / "qformer.safetensors")
    write_json(folder / "adapter.json", {"backbone": backbone_fingerprint, "qformer": adapter.qformer.sizes})


def _load(folder: Path, backbone: Backbone, trainable: bool) -> Adapter:
    said = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
    have = checkpoint_fingerprint(Path(backbone.model.name_or_path))
    if said["backbone"] != have:
        raise ArtifactError(
            f"{folder} was trained on backbone {said['backbone'][:12]}, this one is {have[:12]}: "
            "name the backbone it was trained on, or train an adapter for this one"
        )
    qformer = QFormer(backbone.width, **said["qformer"])
    qformer.load_state_dict(load_file(folder / "qformer.safetensors"))
    return Adapter(load_lora(backbone.model, folder / "lora", trainable), qformer)


def _sizes(config: AdapterConfig) -> dict[str, Any]:
    return {
        "queries": config.queries,
        "layers": config.qformer_layers,
        "heads": config.qformer_heads,
        "head_width": config.qformer_head_width,
    }
