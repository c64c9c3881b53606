"""LoRA on the backbone: its target modules, how it is added or loaded, and when it is active.

The encoder is the backbone with the adapter on, the reasoner is the same backbone with it off: one copy of the weights.
CoMEM (arXiv 2505.17670) puts LoRA on every Linear of the language model and of the vision tower (its merger included),
but not on the patch embedding (a convolution), the token embedding or lm_head. The library is PEFT.

An imported reasoner may have a LoRA of its own (`add_reasoner_lora`). Then "off" means: that one on.

PEFT leaves a matrix at its initial value where the file has none of its name, and drops those it does not know. Here a
LoRA folder is loaded only if every tensor lands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import check_target_module_exists
from torch import Tensor, nn
from transformers import PreTrainedModel

from comem_ray.artifacts import ArtifactError
from comem_ray.config import AdapterConfig
from comem_ray.model.families import family_of
from comem_ray.model.module_names import current_lora_name, earlier_names
from comem_ray.weights import Shapes, brief, load_tensors, read_settings, require_finite, require_fit

ENCODER, REASONER = "default", "reasoner"  # PEFT's names of the two adapters

# Fields of adapter_config.json that choose the modules or the scale, and those that change no number.
_USED = {"peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora"}
_SELECTION = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
_IGNORED = {
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "inference_mode",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
}
_PLAIN_VALUES = {"bias": ("none",), "init_lora_weights": (True, False, "gaussian", "orthogonal")}


def add_lora(model: PreTrainedModel, sizes: AdapterConfig) -> PeftModel:
    """Adds seeded LoRA layers to `model` in place (B = 0: no effect yet), disabled. Freezes everything else."""
    config = LoraConfig(
        r=sizes.lora_rank,
        lora_alpha=sizes.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=sizes.lora_dropout,
        bias="none",
        target_modules=family_of(model.config).lora_targets,
    )
    with torch.random.fork_rng():
        torch.manual_seed(sizes.seed)
        lora = get_peft_model(model, config, autocast_adapter_dtype=False)
    return _disabled(lora)


def load_lora(model: PreTrainedModel, folder: Path, trainable: bool = False) -> PeftModel:
    """Adds the LoRA layers of a PEFT folder (safetensors only) to `model` in place, disabled.

    Key names from before transformers 4.52 are known. Raises ArtifactError, and leaves `model` as it was, where the
    folder is damaged, is more than LoRA on the family's Linears, or a tensor is missing, unexpected, of another
    shape or not finite.
    """
    config, tensors = _read(model, folder, trainable)
    with torch.random.fork_rng():
        lora = PeftModel(model, config, autocast_adapter_dtype=False)
    _copy_into(lora, tensors, ENCODER)
    return _disabled(lora)


def add_reasoner_lora(lora: PeftModel, folder: Path) -> None:
    """Adds the LoRA of the reasoner, a PEFT folder, beside that of the encoder. From now on it is on wherever the
    encoder's is not. Does nothing where it is there already. Raises as `load_lora` does.
    """
    if REASONER in lora.peft_config:
        return
    config, tensors = _read(lora.base_model.model, folder, trainable=False)  # type: ignore[arg-type]
    config.lora_dropout = 0.0  # it is never trained here, and new modules begin in training mode
    with torch.random.fork_rng():
        lora.add_adapter(REASONER, config, autocast_adapter_dtype=False)
    _copy_into(lora, tensors, REASONER)
    tuner: Any = lora.base_model
    tuner.enable_adapter_layers()
    tuner.set_adapter(REASONER, inference_mode=True)


def _read(model: PreTrainedModel, folder: Path, trainable: bool) -> tuple[LoraConfig, dict[str, Tensor]]:
    """PEFT's configuration of a folder and its tensors, of which each has its place in `model`."""
    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        raise ArtifactError(f"{folder} has no adapter_model.safetensors; an adapter in a pickle (.bin) is not loaded")
    settings, linears = lora_settings(folder / "adapter_config.json"), _linears(model)
    modules = _target_modules(linears, folder / "adapter_config.json", settings)
    tensors = lora_tensors(weights)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    require_fit(weights, shapes, _shapes(modules, settings["r"]), _advice(settings["r"]))
    require_finite(weights, {n: t.to(model.dtype) for n, t in tensors.items()}, "backbone.precision")
    config = LoraConfig(
        r=settings["r"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=settings.get("lora_dropout", 0.0),
        use_rslora=bool(settings.get("use_rslora")),
        bias="none",
        target_modules=family_of(model.config).lora_targets if modules.keys() == linears.keys() else sorted(modules),
        inference_mode=not trainable,
    )
    return config, tensors


def lora_sizes(lora: PeftModel) -> dict[str, Any]:
    """What the scale of a LoRA's output depends on: rank, alpha, and whether it is alpha / sqrt(rank)."""
    config = lora.peft_config["default"]
    return {"rank": config.r, "alpha": config.lora_alpha, "use_rslora": config.use_rslora}  # type: ignore[attr-defined]


@contextmanager
def adapter_enabled(lora: PeftModel) -> Iterator[None]:
    """The encoder's adapter is active within the block only, even if the block raises."""
    tuner: Any = lora.base_model
    if REASONER in lora.peft_config:
        tuner.set_adapter(ENCODER)
    else:
        tuner.enable_adapter_layers()
    try:
        yield
    finally:
        if REASONER in lora.peft_config:
            tuner.set_adapter(REASONER, inference_mode=True)
        else:
            tuner.disable_adapter_layers()


def _disabled(lora: PeftModel) -> PeftModel:
    tuner: Any = lora.base_model
    tuner.disable_adapter_layers()
    return lora


def _linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The modules that may carry LoRA, by name, also where they carry one already."""
    targets = re.compile(family_of(model.config).lora_targets)
    modules = {n: getattr(m, "base_layer", m) for n, m in model.named_modules() if targets.fullmatch(n)}
    return {name: module for name, module in modules.items() if isinstance(module, nn.Linear)}


def _advice(rank: int) -> str:
    return (
        f"Want LoRA of rank {rank} (as adapter_config.json says) on every module that its target_modules match: "
        "take the folder that training wrote, whole, and its own backbone"
    )


def lora_settings(path: Path) -> dict[str, Any]:
    """The fields of adapter_config.json. Raises ArtifactError unless they describe plain LoRA, with rank and alpha."""
    settings = read_settings(path)
    if settings.get("peft_type") != "LORA":
        raise ArtifactError(f"{path} is of type {settings.get('peft_type')!r}, want an adapter of PEFT's type 'LORA'")
    for field, types in (("r", int), ("lora_alpha", (int, float))):
        value = settings.get(field)
        if isinstance(value, bool) or not isinstance(value, types) or value <= 0:  # type: ignore[arg-type]
            raise ArtifactError(f"{path}: {field} is {value!r}, want a number above 0, that of its training")
    known = _USED | _IGNORED | set(_SELECTION)
    for field, value in settings.items():
        plain = value in _PLAIN_VALUES[field] if field in _PLAIN_VALUES else not value
        if field not in known and not plain:
            raise ArtifactError(
                f"{path}: {field} is {value!r}, which is more than LoRA on the backbone's Linears: "
                f"train an adapter without {field}"
            )
    return settings


def _target_modules(linears: dict[str, nn.Linear], path: Path, settings: dict[str, Any]) -> dict[str, nn.Linear]:
    """Those of `linears` that adapter_config.json selects, by today's or by an earlier name."""
    if settings.get("target_modules") == "all-linear":
        return linears
    try:
        fields: dict[str, Any] = {field: settings.get(field) for field in _SELECTION}
        selection = LoraConfig(**fields)
        chosen = {
            name: module
            for name, module in linears.items()
            if any(check_target_module_exists(selection, key) for key in (name, *earlier_names(name)))
        }
    except (ValueError, TypeError, re.error) as error:
        raise ArtifactError(f"{path}: target_modules cannot be used ({brief(error)})") from error
    if not chosen:
        raise ArtifactError(
            f"{path}: target_modules {settings.get('target_modules')!r} match no Linear of the backbone: "
            "name the backbone that the adapter was trained on"
        )
    return chosen


def lora_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of adapter_model.safetensors by today's names. Raises ArtifactError where two become one."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in load_tensors(path).items():
        current = current_lora_name(name)
        if current in tensors:
            raise ArtifactError(f"{path} holds {current} twice, under different names: save the adapter again")
        tensors[current] = tensor
    return tensors


def _shapes(modules: dict[str, nn.Linear], rank: int) -> Shapes:
    shapes: Shapes = {}
    for name, module in modules.items():
        shapes[f"{name}.lora_A.weight"] = (rank, module.in_features)
        shapes[f"{name}.lora_B.weight"] = (module.out_features, rank)
    return shapes


@torch.no_grad()
def _copy_into(lora: PeftModel, tensors: dict[str, Tensor], adapter: str) -> None:
    suffix = f".{adapter}.weight"
    parameters = {current_lora_name(n): p for n, p in lora.named_parameters() if ".lora_" in n and n.endswith(suffix)}
    assert parameters.keys() == tensors.keys()
    for name, tensor in tensors.items():
        parameters[name].copy_(tensor)
