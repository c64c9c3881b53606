"""The checkpoint of a backbone: its folder, its configuration, its files of weights, and its fingerprint."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, StrictDataclassError
from transformers import AutoConfig

from comem_ray.artifacts import ArtifactError, file_sha256, fingerprint
from comem_ray.config import ConfigError
from comem_ray.home import home_hint, resolve
from comem_ray.weights import brief, first_names, read_settings, tensor_shapes

FAMILIES = ("qwen2_5_vl", "qwen2_vl")
INDEX = "model.safetensors.index.json"
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
        raise ConfigError(f"backbone.model {folder} is of type {family!r}, wanted {' or '.join(FAMILIES)}")
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, StrictDataclassError) as error:
        raise unusable(folder, error) from error


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
    index = folder / INDEX
    if index.is_file() and not (folder / "model.safetensors").is_file():
        shards = read_settings(index).get("weight_map")
        if not isinstance(shards, dict):
            raise ArtifactError(f"{index} has no weight_map: copy or download it again")
        if missing := sorted({str(shard) for shard in shards.values()} - {path.name for path in files}):
            raise ArtifactError(
                f"{index} names {len(missing)} shards that are not there ({first_names(missing)}): "
                "copy or download them too"
            )
    for path in files:
        tensor_shapes(path)
    return files


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
