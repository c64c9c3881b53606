"""The adapter of a configuration as a folder for the Hugging Face Hub: the whole of `comem export`.

    adapter_config.json, adapter_model.safetensors    LoRA, as `PeftModel.from_pretrained` takes it
    qformer.safetensors, adapter.json                 Q-Former; sizes, and the fingerprint of the backbone
    reasoner/                                         a second LoRA, where an imported adapter has one
    comem.yaml, README.md                             configuration, model card
    merged/, merged_reasoner/                         whole checkpoints, if asked for

The folder is an adapter folder: `adapter.path` may name it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from comem_ray.artifacts import ArtifactError, storage_errors, write_atomic
from comem_ray.artifacts.new_folder import new_folder, require_new
from comem_ray.config import Config, ConfigError
from comem_ray.export.card import model_card
from comem_ray.export.merged import write_merged
from comem_ray.home import resolve
from comem_ray.model.adapter import REASONER_FOLDER, adapter_files, lora_folder
from comem_ray.model.checkpoint import checkpoint_fingerprint, checkpoint_folder
from comem_ray.model.lora import lora_settings, lora_tensors
from comem_ray.model.released.adapter_folder import SETTINGS
from comem_ray.model.released.folder import Matrices, write_lora
from comem_ray.model.released.release import base_shapes, lora_pattern
from comem_ray.weights import read_settings

_SIZES = ("r", "lora_alpha", "lora_dropout", "use_rslora")
_HEAD = """\
# Written by `comem export`: the configuration that this adapter ran under.
# Set backbone.model and adapter.path to where they are with you; relative paths are below $COMEM_HOME.
"""
Progress = Callable[[int, int], object]
"""Called with the number of tensors that are merged, and of all."""


@dataclass(frozen=True)
class StoredLora:
    """A LoRA that was read: matrices by module, and PEFT's fields that its scale depends on."""

    matrices: Matrices
    sizes: dict[str, Any]

    @property
    def scale(self) -> float:
        """What B @ A is multiplied by."""
        rank = self.sizes["r"] ** 0.5 if self.sizes["use_rslora"] else self.sizes["r"]
        return self.sizes["lora_alpha"] / rank


def export_adapter(
    config: Config, out: Path, merged: bool = False, progress: Progress = lambda done, total: None
) -> dict[str, int]:
    """Writes the adapter of `config` to the new folder `out`; returns bytes by file. `merged` adds whole checkpoints.

    Raises ConfigError without a trained adapter, ArtifactError where `out` holds files, a file is damaged or the
    adapter is of another backbone.
    """
    out = out.absolute()
    require_new(out)
    if config.adapter.path is None:
        raise ConfigError("adapter.path is null: name the folder of a trained adapter, random weights are not exported")
    folder, base_folder = resolve(config.adapter.path), checkpoint_folder(config.backbone.model)
    adapter_files(folder)
    _require_base(folder, base_folder)
    every = base_shapes(base_folder)[1]
    base = None if resolve(config.backbone.model).is_dir() else config.backbone.model
    loras = {"": read_lora(lora_folder(folder))}
    if (folder / REASONER_FOLDER).is_dir():
        loras[REASONER_FOLDER] = read_lora(folder / REASONER_FOLDER)
    with new_folder(out) as building, storage_errors(out):
        for name, lora in loras.items():
            targets = lora_pattern(base_folder) if len(lora.matrices) == len(every) else None
            write_lora(building / name, lora.matrices, lora.sizes, targets, base)
            if merged:
                target = building / (f"merged_{name}" if name else "merged")
                write_merged(target, base_folder, lora.matrices, lora.scale, progress)
        for file in ("qformer.safetensors", "adapter.json"):
            shutil.copyfile(folder / file, building / file)
        _write_settings(building / SETTINGS, config, out.name)
        card = model_card(config, read_settings(folder / "adapter.json"), base, set(loras), merged)
        write_atomic(building / "README.md", lambda path: path.write_text(card, encoding="utf-8"))
        files = sorted(path for path in building.rglob("*") if path.is_file())
        return {str(path.relative_to(building)): path.stat().st_size for path in files}


def read_lora(folder: Path) -> StoredLora:
    """The LoRA of a PEFT folder, under whatever names it has. Raises ArtifactError where a file is damaged."""
    settings = lora_settings(folder / "adapter_config.json")
    tensors = lora_tensors(folder / "adapter_model.safetensors")
    modules = sorted({name.rsplit(".lora_", 1)[0] for name in tensors})
    try:
        matrices = {m: (tensors[f"{m}.lora_A.weight"], tensors[f"{m}.lora_B.weight"]) for m in modules}
    except KeyError as error:
        raise ArtifactError(f"{folder} lacks the matrix {error}: copy the adapter's folder again") from error
    return StoredLora(
        matrices, {"lora_dropout": 0.0, "use_rslora": False} | {n: settings[n] for n in _SIZES if n in settings}
    )


def _require_base(folder: Path, base_folder: Path) -> None:
    made_on, present = read_settings(folder / "adapter.json").get("backbone"), checkpoint_fingerprint(base_folder)
    if made_on != present:
        raise ArtifactError(
            f"{folder} was trained on backbone {str(made_on)[:12]}, backbone.model is {present[:12]}: "
            "name the backbone it was trained on"
        )


def _write_settings(path: Path, config: Config, name: str) -> None:
    """The configuration without this machine's absolute paths of backbone and adapter."""
    settings = config.model_dump(mode="json")
    model = Path(config.backbone.model)
    settings["backbone"]["model"] = model.name if model.expanduser().is_absolute() else config.backbone.model
    settings["adapter"]["path"] = name
    text = _HEAD + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))
