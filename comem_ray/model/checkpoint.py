"""The checkpoint of a backbone: its folder and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from comem_ray.artifacts import file_sha256, fingerprint
from comem_ray.config import ConfigError
from comem_ray.home import home_hint, resolve

_PIECE = 1 << 20
_PIECES = 64


def checkpoint_folder(model: str) -> Path:
    """The folder of a checkpoint: `model` itself if it is a folder, else the snapshot of that hub name (fetched once).

    Raises ConfigError if it is neither.
    """
    folder = resolve(model)
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(model, allow_patterns=["*.safetensors", "*.json", "*.txt"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"backbone.model: {folder} is not a folder{home_hint(folder)}, and the hub has no {model!r}: {error}"
        ) from error


def checkpoint_fingerprint(folder: Path) -> str:
    """Digest (hex) of a checkpoint: of its config.json and its safetensors files. Raises ConfigError without weights.

    The version of transformers that wrote the configuration is left out: it is not part of the model.

    Of a file over 64 MB, only its size and 64 evenly spread pieces of 1 MB are read. So 16 GB take seconds; and a model
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
