"""The checkpoint of a backbone: its folder and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from comem_ray.artifacts import file_sha256, fingerprint
from comem_ray.config import ConfigError, resolve

_PIECE = 1 << 20
_PIECES = 64


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

    The version of transformers that wrote the configuration does not count: it is not the model's.

    Of a file over 64 MB, its size and 64 pieces of 1 MB spread evenly over it are read: 16 GB take seconds, and a model
    that was trained further differs in every piece.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{folder} holds no .safetensors file")
    digests = {path.name: _sampled_sha256(path) for path in files}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
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
