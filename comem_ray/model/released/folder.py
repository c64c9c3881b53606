"""The adapter folder of a release: LoRA as a PEFT folder, the Q-Former, the second LoRA where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from comem_ray.artifacts import ArtifactError, storage_errors, write_json
from comem_ray.finite import is_finite
from comem_ray.model.released.release import Tensors

Matrices = Mapping[str, tuple[Tensor, Tensor]]


def write_lora(
    folder: Path, matrices: Matrices, sizes: Mapping[str, Any], targets: str | None, base: str | None
) -> None:
    """Writes a PEFT folder, which `PeftModel.from_pretrained` loads on the stock model.

    `sizes` are the fields `r` and `lora_alpha` of PEFT's configuration, and others that differ from their defaults.
    `targets` is the pattern of the matrices' modules where it is of all of them; `base` is the base's name on the hub.
    """
    config = LoraConfig(
        **sizes,
        bias="none",
        target_modules=targets or sorted(matrices),
        inference_mode=True,
        base_model_name_or_path=base,
    )
    tensors = {}
    for module, (a, b) in matrices.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(str(folder))
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def write_qformer(path: Path, qformer: Tensors) -> int:
    """Writes a released Q-Former under our names, in its stored precision; returns its number of parameters.

    Raises ArtifactError, naming the tensor, where one is not finite.
    """
    tensors: dict[str, Tensor] = {}
    for name, stored in qformer.items():
        tensor = stored.read()
        if not is_finite(tensor):
            raise ArtifactError(f"{stored.path}: {stored.name} holds NaN or infinity: copy or download it again")
        tensors[name] = (tensor.flatten(0, -2) if name == "queries" else tensor).clone()
    with storage_errors(path):
        save_file(tensors, path)
    return sum(tensor.numel() for tensor in tensors.values())


def write_facts(path: Path, backbone: str, qformer: Mapping[str, int], rank: int, alpha: float) -> None:
    """Writes adapter.json: the fingerprint of the backbone, and the sizes of Q-Former and LoRA."""
    lora: dict[str, Any] = {"rank": rank, "alpha": alpha, "use_rslora": False}
    write_json(path, {"backbone": backbone, "qformer": dict(qformer), "lora": lora})
