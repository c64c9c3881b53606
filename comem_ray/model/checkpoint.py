"""The checkpoint of a backbone: its folder, its configuration, its files of weights, and its fingerprint."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, StrictDataclassError
from transformers import AutoConfig

from comem_ray.artifacts import ArtifactError, file_sha256, fingerprint
from comem_ray.config import ConfigError
from comem_ray.home import home_hint, resolve
from comem_ray.model.families import FAMILIES
from comem_ray.weights import brief, first_names, read_settings, tensor_shapes

log = logging.getLogger(__name__)

UNUSABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)  # what wrong fields lead to
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PIECE = 1 << 20
_PIECES = 64


def checkpoint_folder(model: str) -> Path:
    """The folder of a checkpoint: `model` itself if it is a folder, else the snapshot of that hub name (fetched once).

    Raises ConfigError if it is neither.
    """
    folder = resolve(model)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ConfigError(f"backbone.model: {folder} is a file: name the folder of the checkpoint, {folder.parent}")
    try:
        return Path(snapshot_download(model, allow_patterns=["*.safetensors", "*.json", "*.txt"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"backbone.model: {folder} is not a folder{home_hint(folder)}, and the hub has no {model!r}: {error}"
        ) from error


def checkpoint_settings(folder: Path) -> dict[str, Any]:
    """What config.json says. Raises ConfigError where it is missing, ArtifactError where it is damaged."""
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(f"{folder} is not the folder of a checkpoint: it lacks config.json")
    return read_settings(path)


def checkpoint_config(folder: Path) -> Any:
    """The configuration of transformers that config.json makes.

    Raises ConfigError for another family of models, ArtifactError where config.json cannot be used.
    """
    family = checkpoint_settings(folder).get("model_type")
    if family not in FAMILIES:
        raise ConfigError(f"backbone.model {folder} is of type {family!r}, wanted one of {', '.join(FAMILIES)}")
    try:
        settings = AutoConfig.from_pretrained(folder)
        text = settings.text_config
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        section = (text.rope_parameters or {}).get("mrope_section")
        if section is not None and 2 * sum(section) != width:
            raise ValueError(f"mrope_section {section} is not half of the heads' width, {width}")
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        StrictDataclassError,
    ) as error:
        raise unusable(folder, error) from error
    return settings


def named_stop_ids(folder: Path) -> list[int]:
    """The ids that generation_config.json names as ends of an answer; none where it is missing or damaged."""
    path = folder / "generation_config.json"
    try:
        ids = read_settings(path).get("eos_token_id") if path.is_file() else None
    except ArtifactError as error:
        log.warning("%s; its stop tokens are not used", error)
        return []
    return [i for i in (ids if isinstance(ids, list) else [ids]) if type(i) is int]


def unusable(folder: Path, error: Exception) -> ArtifactError:
    """The refusal of a config.json from which transformers can make no model."""
    return ArtifactError(
        f"{folder / 'config.json'} does not describe a model ({brief(error)}): copy or download it again"
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, sorted, each with a whole header.

    Raises ConfigError where there are none, ArtifactError where one is damaged or the index names one that is missing.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{folder} holds no .safetensors file: name a checkpoint with weights in that format")
    if not (folder / SINGLE).exists():
        _check_index(folder / INDEX, {path.name for path in files})
    for path in files:
        tensor_shapes(path)
    return files


def _check_index(index: Path, files: set[str]) -> None:
    if not index.is_file():
        raise ConfigError(f"{index.parent} has shards, but no {INDEX}: copy or download it too")
    settings = read_settings(index)
    shards = settings.get("weight_map")
    if not shards or not isinstance(shards, dict) or not isinstance(settings.get("metadata"), dict):
        raise ArtifactError(f"{index} lacks a weight_map or its metadata: copy or download it again")
    if missing := sorted({str(shard) for shard in shards.values()} - files):
        raise ArtifactError(
            f"{index} names shards that are not there ({len(missing)}: {first_names(missing)}): "
            "copy or download them too"
        )


def checkpoint_fingerprint(folder: Path) -> str:
    """Digest (hex) of a checkpoint: of its config.json and its safetensors files.

    Raises ConfigError without weights, ArtifactError where a file is damaged.

    The version of transformers that wrote the configuration is left out: it is not part of the model.

    Of a file over 64 MB, only its size and 64 evenly spread pieces of 1 MB are read. So 16 GB take seconds; and a model
    that was trained further differs in every piece.
    """
    config = checkpoint_settings(folder)
    digests = {path.name: _sampled_sha256(path) for path in weight_files(folder)}
    config.pop("transformers_version", None)
    return fingerprint({"config": config, "weights": digests})


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
