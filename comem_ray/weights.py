"""Files of weights (safetensors) and of settings (JSON) that others wrote: read, or refused in one sentence.

A damaged file is an ArtifactError: it names the file, what is wrong with it, and what would be right. Knows nothing of
the models that the weights belong to. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from comem_ray.artifacts import ArtifactError
from comem_ray.finite import dtype_name, is_finite, right_precision

Shapes = dict[str, tuple[int, ...]]
NAMES_SHOWN = 3
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def read_settings(path: Path) -> dict[str, Any]:
    """The mapping that a JSON file holds. Raises ArtifactError for a file that is missing, damaged or another value."""
    require_contents(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not JSON ({brief(error)}): copy or download it again") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(data, dict):
        kind = type(data).__name__
        raise ArtifactError(f"{path} holds a {kind}, it lacks the fields of a JSON object: copy or download it again")
    return data


def tensor_shapes(path: Path) -> Shapes:
    """Shapes by name of a safetensors file, of its header alone. Raises ArtifactError for a damaged file."""
    require_contents(path)
    try:
        with safe_open(path, framework="pt") as f:
            return {name: tuple(f.get_slice(name).get_shape()) for name in f.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a safetensors file, on the CPU. Raises ArtifactError for a damaged file."""
    require_contents(path)
    try:
        with safe_open(path, framework="pt") as f:
            return {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def require_fit(source: Path, present: Shapes, wanted: Shapes, advice: str) -> None:
    """Raises ArtifactError unless `present` has exactly the names and shapes that are wanted; gives counts and names.

    `source` is the file or folder of the tensors present, `advice` says what would be right.
    """
    missing, unexpected = sorted(wanted.keys() - present.keys()), sorted(present.keys() - wanted.keys())
    shaped = [name for name in sorted(wanted.keys() & present.keys()) if wanted[name] != present[name]]
    faults = []
    if missing:
        faults.append(f"missing: {len(missing)} of {len(wanted)} tensors ({first_names(missing)})")
    if unexpected:
        faults.append(f"unexpected: {len(unexpected)} of {len(present)} ({first_names(unexpected)})")
    if shaped:
        shapes = [f"{n} is {list(present[n])}, want {list(wanted[n])}" for n in shaped]
        faults.append(f"of another shape: {len(shaped)} ({first_names(shapes)})")
    if faults:
        raise ArtifactError(f"{source} does not fit: {'; '.join(faults)}. {advice}")


def require_finite(source: Path, tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]], field: str) -> None:
    """Raises ArtifactError, with the file and the first names, where a tensor holds NaN or infinity.

    `field` is that of the configuration which chose their precision.
    """
    pairs = tensors.items() if isinstance(tensors, Mapping) else tensors
    dtypes = {name: tensor.dtype for name, tensor in pairs if not is_finite(tensor)}
    if dtypes:
        dtype, names = next(iter(dtypes.values())), first_names(list(dtypes))
        raise ArtifactError(
            f"{source} holds NaN or infinity in {dtype_name(dtype)}, tensors: {len(dtypes)} ({names}): "
            f"{right_precision(dtype, field)}"
        )


def first_names(names: list[str]) -> str:
    """The first of many names, and that there are more."""
    more = f", and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def brief(error: BaseException, limit: int = 200) -> str:
    """The message of another library's exception in one line, cut at `limit` characters."""
    text = " ".join(str(error).split())
    if isinstance(error, LookupError) or not text:  # a KeyError holds the key alone
        text = f"{type(error).__name__} {text}".strip()
    return text if len(text) <= limit else text[:limit] + " ..."


def require_contents(path: Path) -> None:
    """Raises ArtifactError where there is no such file, an empty one, or only Git LFS's note of where it is."""
    try:
        with open(path, "rb") as f:
            start = f.read(len(_LFS_POINTER))
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    if start == _LFS_POINTER:
        raise ArtifactError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in the repository it came from, "
            "and copy it again"
        )
    if not start:
        raise ArtifactError(f"{path} is empty: copy or download it again")


def _damaged(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{path} is not a whole safetensors file ({brief(error)}): copy or download it again")
