"""A checkpoint with the LoRA added to its weights, for engines that take no adapter; written tensor by tensor.

Files, names and precision are those of the base: base + scale * B @ A, added in float32 and rounded once. What such an
engine computes differs from backbone and LoRA by that rounding (bfloat16: 3 digits).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from comem_ray.artifacts import ArtifactError, storage_errors
from comem_ray.model.module_names import current_name
from comem_ray.model.released.folder import Matrices
from comem_ray.model.released.shards import StoredTensor, stored_tensors, write_tensors

_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf"}


def write_merged(
    folder: Path, base: Path, matrices: Matrices, scale: float, progress: Callable[[int, int], object]
) -> None:
    """Writes the checkpoint `base` with the LoRA `matrices` (A, B by module) merged into it, to the new `folder`.

    Raises ArtifactError where a file is damaged, or a matrix fits no weight; StorageError where the disk refuses.
    """
    stored = stored_tensors(base)
    _require_places(base, stored, matrices)
    done = 0

    @torch.no_grad()
    def make(name: str) -> Tensor:
        nonlocal done
        done += 1
        progress(done, len(stored))
        weight = stored[name].read()
        pair = matrices.get(_module(name))
        if pair is None:
            return weight
        a, b = pair
        return weight.float().addmm_(b.float(), a.float(), alpha=scale).to(weight.dtype)

    with storage_errors(folder):
        folder.mkdir(parents=True)
        for path in base.iterdir():
            if path.is_file() and path.suffix not in _WEIGHTS:
                shutil.copyfile(path, folder / path.name)
    for file in sorted({tensor.path for tensor in stored.values()}):
        wanted = {name: (t.shape, t.dtype) for name, t in stored.items() if t.path == file}
        write_tensors(folder / file.name, wanted, make)


def _module(name: str) -> str:
    return current_name(name).removesuffix(".weight")


def _require_places(base: Path, stored: dict[str, StoredTensor], matrices: Matrices) -> None:
    shapes = {_module(name): tensor.shape for name, tensor in stored.items() if name.endswith(".weight")}
    for module, (a, b) in matrices.items():
        shape = (b.shape[0], a.shape[1])
        if shapes.get(module) != shape:
            present = "is not there" if module not in shapes else f"is {list(shapes[module])}"
            raise ArtifactError(
                f"the LoRA of {module} is for a weight of shape {list(shape)}, which {present} in {base}: "
                "name the backbone that the adapter was trained on"
            )
