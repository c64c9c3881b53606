"""Safetensors files of any size, read and written tensor by tensor: never more than one tensor in memory.

Reads the headers by itself, so that of a file which was cut short the first tensor that is not whole can be named.
Knows nothing of what the tensors are. A file is closed after every read: its pages leave the process with the tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from comem_ray.artifacts import ArtifactError, storage_errors
from comem_ray.model.checkpoint import INDEX, SINGLE
from comem_ray.weights import brief, read_settings, require_contents

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_TAGS = {dtype: tag for tag, dtype in DTYPES.items()}
_MAX_HEADER = 100_000_000  # the format's own limit, bytes


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, not in memory."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self, rows: slice | None = None) -> Tensor:
        """The tensor, or some of its rows, on the CPU in its stored dtype. Raises ArtifactError for a damaged file."""
        try:
            with safe_open(self.path, framework="pt") as f:
                return f.get_tensor(self.name) if rows is None else f.get_slice(self.name)[rows]
        except (SafetensorError, OSError) as error:
            raise ArtifactError(
                f"{self.path}: {self.name} {list(self.shape)} cannot be read ({brief(error)}): download it again"
            ) from error

    def rows(self, elements: int = 1 << 24) -> Iterator[slice]:
        """Slices of the first axis of at most about `elements` numbers each; one for a tensor of fewer axes."""
        count = self.shape[0] if self.shape else 1
        step = max(1, elements * count // max(1, math.prod(self.shape)))
        return (slice(start, min(start + step, count)) for start in range(0, count, step))


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a checkpoint folder by their names in its files; reads headers alone.

    Raises ArtifactError where a file is missing or cut short, and where a tensor is there twice or not of floats.
    """
    tensors: dict[str, StoredTensor] = {}
    index = _index(folder)
    for path in _files(folder, index):
        for tensor in _tensors_of(path):
            if tensor.name in tensors:
                raise ArtifactError(
                    f"{tensor.name} is in {tensors[tensor.name].path.name} and in {path.name} of {folder}: "
                    "want it once; keep the shards of one checkpoint in the folder"
                )
            tensors[tensor.name] = tensor
    if missing := sorted(name for name in index if name not in tensors):
        raise ArtifactError(
            f"{folder / INDEX} says that {index[missing[0]]} holds {missing[0]}, which is not there ({len(missing)} "
            "such tensors): copy or download the index and its shards again"
        )
    return tensors


def _index(folder: Path) -> dict[str, str]:
    """Shard by tensor name; empty for a checkpoint of one file."""
    path = folder / INDEX
    if (folder / SINGLE).is_file() or not path.is_file():
        return {}
    shards = read_settings(path).get("weight_map")
    if not shards or not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
        raise ArtifactError(f"{path} lacks a weight_map: copy or download it again")
    return shards


def _files(folder: Path, index: Mapping[str, str]) -> list[Path]:
    present = sorted(folder.glob("*.safetensors"))
    for shard in sorted(set(index.values())):
        if folder / shard not in present:
            names = sorted(name for name, place in index.items() if place == shard)
            raise ArtifactError(
                f"{folder / INDEX} names {shard}, which is not there: it holds {len(names)} tensors, the first is "
                f"{names[0]}; copy or download it too"
            )
    if not present:
        raise ArtifactError(
            f"{folder} holds no .safetensors file: want the weights in that format, pickles are not read"
        )
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not index and len(present) > 1:
        raise ArtifactError(f"{folder} has {len(present)} shards, but no {INDEX}: copy or download it too")
    return sorted({folder / shard for shard in index.values()}) if index else present


def _tensors_of(path: Path) -> Iterator[StoredTensor]:
    header, start = _header(path)
    size = path.stat().st_size
    for name, fields in sorted(header.items(), key=lambda pair: pair[1]["data_offsets"]):
        shape, dtype, end = tuple(fields["shape"]), DTYPES.get(fields["dtype"]), start + fields["data_offsets"][1]
        if end > size:
            raise ArtifactError(
                f"{path} is cut short: {name} of shape {list(shape)} ends at byte {end:,}, the file at {size:,}: "
                "copy or download it again"
            )
        if dtype is None:
            raise ArtifactError(
                f"{path}: {name} of shape {list(shape)} is stored as {fields['dtype']}, want {', '.join(DTYPES)}: "
                "take the weights that are not quantized"
            )
        yield StoredTensor(path, name, shape, dtype)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The fields of each tensor by name, and the byte where their data begin."""
    require_contents(path)
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        text = f.read(length) if length <= _MAX_HEADER else b""
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        if not all(_is_entry(**fields) for fields in header.values()):
            raise ValueError("not shape, dtype and data_offsets")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path} is not a whole safetensors file: copy or download it again") from error
    return header, 8 + length


def _is_entry(dtype: Any, shape: Any, data_offsets: Any) -> bool:
    numbers = [*shape, *data_offsets]
    return isinstance(dtype, str) and len(data_offsets) == 2 and all(type(n) is int and n >= 0 for n in numbers)


def write_tensors(
    path: Path, wanted: Mapping[str, tuple[tuple[int, ...], torch.dtype]], make: Callable[[str], Tensor]
) -> None:
    """Writes a safetensors file of tensors given by name, shape and dtype. `make(name)` is called when it is written.

    Raises StorageError where the filesystem refuses.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (shape, dtype) in wanted.items():
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _TAGS[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with storage_errors(path), open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for name, (shape, dtype) in wanted.items():
            tensor = make(name)
            assert (tuple(tensor.shape), tensor.dtype) == (tuple(shape), dtype), name
            if tensor.numel():
                tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tofile(f)
