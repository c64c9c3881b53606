"""The adapter, which is the trained part: its folder, and the fingerprint of an encoder (a backbone with an adapter).

An adapter folder holds `lora/` (a PEFT folder, which `PeftModel.from_pretrained` loads), `qformer.safetensors` and
`adapter.json` (sizes, and the fingerprint of the backbone that it was trained on). The files of `lora/` may also stand
in the folder itself, as `comem export` writes them for the hub. No file is a pickle. A folder is loaded only if every
tensor lands and is finite.

An imported adapter may have a second LoRA in `reasoner/`: the language model that answers, where it is not the base.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file

from comem_ray.artifacts import ArtifactError, file_sha256, fingerprint, write_json
from comem_ray.config import AdapterConfig, Config, ConfigError
from comem_ray.home import home_hint, resolve
from comem_ray.model.backbone import Backbone
from comem_ray.model.checkpoint import checkpoint_config, checkpoint_fingerprint, checkpoint_folder
from comem_ray.model.families import family_of
from comem_ray.model.lora import add_lora, load_lora, lora_settings, lora_sizes
from comem_ray.model.qformer import QFormer
from comem_ray.prompts import MAX_TEXT_CHARS, item_turn
from comem_ray.weights import load_tensors, read_settings, require_finite, require_fit, tensor_shapes

ADAPTER_FILES = ("adapter.json", "qformer.safetensors", "lora/adapter_config.json", "lora/adapter_model.safetensors")
LORA_FOLDER, REASONER_FOLDER = "lora", "reasoner"
LORA_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass
class Adapter:
    """The trained part: the LoRA layers (inside the backbone, inactive unless enabled) and the Q-Former."""

    lora: PeftModel
    qformer: QFormer


def encoder_identity(config: Config) -> dict[str, Any]:
    """All that a memory depends on: backbone, adapter, pixel limits and prompt. Loads no weights.

    Precision and device are left out: they change the rounding of a memory, not its content.
    """
    folder = checkpoint_folder(config.backbone.model)
    backbone = checkpoint_fingerprint(folder)
    settings = checkpoint_config(folder)
    template = [getattr(part, "text", None) for part in item_turn("", None, family_of(settings).chat(settings))]
    return {
        "backbone": backbone,
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
    """Digests of an adapter folder's files. Raises ConfigError if one is missing, ArtifactError if one is damaged."""
    if folder.is_file():
        raise ConfigError(f"adapter.path: {folder} is a file: name the folder of the adapter, {folder.parent}")
    paths = {name: _path(folder, name) for name in ADAPTER_FILES}
    if missing := [name for name, path in paths.items() if not path.is_file()]:
        raise ConfigError(f"{folder} is not an adapter folder: it lacks {', '.join(missing)}{home_hint(folder)}")
    return _digests(paths)


def lora_folder(folder: Path) -> Path:
    """Where the PEFT files of an adapter folder are: in lora/, or in the folder itself, as on the hub."""
    in_itself = not (folder / LORA_FOLDER).is_dir() and (folder / LORA_FILES[0]).is_file()
    return folder if in_itself else folder / LORA_FOLDER


def reasoner_lora(config: Config) -> Path | None:
    """The PEFT folder of the LoRA that is on while questions are answered; None where the base answers.

    Raises ConfigError where `reasoner.language_model` is "adapter" and the adapter has none.
    """
    wanted, path = config.reasoner.language_model, config.adapter.path
    folder = None if path is None else resolve(path) / REASONER_FOLDER
    if wanted == "base" or (wanted == "auto" and (folder is None or not folder.is_dir())):
        return None
    if folder is None or not folder.is_dir():
        raise ConfigError(
            f"reasoner.language_model is 'adapter', but the adapter {path} has no {REASONER_FOLDER}/: "
            "set it to 'auto' or 'base', or name an adapter that has one"
        )
    return folder


def reasoner_identity(config: Config) -> dict[str, Any]:
    """What an answer depends on in the section `reasoner`, with the digests of its LoRA where it has one."""
    fields, folder = config.reasoner.model_dump(exclude={"language_model"}), reasoner_lora(config)
    return fields if folder is None else fields | {"language_model": _digests({n: folder / n for n in LORA_FILES})}


def _path(folder: Path, name: str) -> Path:
    parent, _, file = name.rpartition("/")
    return lora_folder(folder) / file if parent == LORA_FOLDER else folder / name


def _digests(paths: dict[str, Path]) -> dict[str, str]:
    """Digests of files by name. Raises ArtifactError where one is damaged."""
    for name, path in paths.items():
        (read_settings if name.endswith(".json") else tensor_shapes)(path)
    return {name: file_sha256(path) for name, path in paths.items()}


def attach_adapter(config: AdapterConfig, backbone: Backbone, trainable: bool = False) -> Adapter:
    """Adds the adapter to `backbone`: trained weights from `config.path`, or seeded random ones if it is null.

    Raises ConfigError if a file is missing. Raises ArtifactError if the adapter was trained on another backbone, if a
    file is damaged, or if a tensor is missing, unexpected, of another shape or not finite.
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
    adapter.lora.save_pretrained(str(folder / LORA_FOLDER), safe_serialization=True)
    weights = {k: v.detach().contiguous().cpu() for k, v in adapter.qformer.state_dict().items()}
    save_file(weights, folder / "qformer.safetensors")
    facts = {"qformer": adapter.qformer.sizes, "lora": lora_sizes(adapter.lora)}
    write_json(folder / "adapter.json", {"backbone": backbone_fingerprint, **facts})


def _load(folder: Path, backbone: Backbone, trainable: bool) -> Adapter:
    stored = read_settings(folder / "adapter.json")
    _refuse_another_backbone(folder, stored, checkpoint_fingerprint(Path(backbone.model.name_or_path)))
    qformer = _load_qformer(folder, stored.get("qformer"), backbone)
    _refuse_other_lora_sizes(folder, stored.get("lora"))
    return Adapter(load_lora(backbone.model, lora_folder(folder), trainable), qformer)


def _refuse_another_backbone(folder: Path, stored: dict[str, Any], present: str) -> None:
    trained_on = stored.get("backbone")
    if not isinstance(trained_on, str):
        raise ArtifactError(f"{folder / 'adapter.json'} names no backbone: copy the adapter's folder again")
    if trained_on != present:
        raise ArtifactError(
            f"{folder} was trained on backbone {trained_on[:12]}, this one is {present[:12]}: "
            "name the backbone it was trained on, or train an adapter for this one"
        )


def _refuse_other_lora_sizes(folder: Path, stored: dict[str, Any] | None) -> None:
    """Adapters of version 0.1 do not state these sizes; `stored` is None then, and nothing is compared."""
    settings = lora_settings(lora_folder(folder) / LORA_FILES[0])
    present = {
        "rank": settings.get("r"),
        "alpha": settings.get("lora_alpha"),
        "use_rslora": bool(settings.get("use_rslora")),
    }
    if stored is not None and present != stored:
        path = lora_folder(folder).relative_to(folder) / LORA_FILES[0]
        raise ArtifactError(
            f"{folder}: {path} says {present}, adapter.json says {stored}: "
            "the LoRA is of another training, copy the adapter's folder again"
        )


def _load_qformer(folder: Path, sizes: Any, backbone: Backbone) -> QFormer:
    names = ("queries", "layers", "heads", "head_width")
    whole = isinstance(sizes, dict) and sizes.keys() == set(names)
    if not whole or any(type(sizes[name]) is not int or sizes[name] < 1 for name in names):
        raise ArtifactError(
            f"{folder / 'adapter.json'}: the sizes of the Q-Former are {sizes!r}, want {', '.join(names)} as numbers "
            "from 1: copy the adapter's folder again"
        )
    with torch.device("meta"):
        qformer = QFormer(backbone.width, **sizes)
    path = folder / "qformer.safetensors"
    wanted = {name: tuple(tensor.shape) for name, tensor in qformer.state_dict().items()}
    advice = f"Want a Q-Former of the sizes in adapter.json and of width {backbone.width}, that of the backbone"
    require_fit(path, tensor_shapes(path), wanted, advice)
    tensors = {name: tensor.to(backbone.dtype) for name, tensor in load_tensors(path).items()}
    require_finite(path, tensors, "backbone.precision")
    qformer.load_state_dict(tensors, assign=True)
    return qformer


def _sizes(config: AdapterConfig) -> dict[str, Any]:
    return {
        "queries": config.queries,
        "layers": config.qformer_layers,
        "heads": config.qformer_heads,
        "head_width": config.qformer_head_width,
    }
