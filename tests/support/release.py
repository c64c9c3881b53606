"""A synthetic release in the format of CoMEM's authors: a tiny base, known LoRA merged into it, a random Q-Former."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from comem_ray.config import Config, load_config
from comem_ray.model.families import FAMILIES
from comem_ray.model.qformer import QFormer
from comem_ray.model.released.importing import import_checkpoint
from comem_ray.model.released.report import ImportReport

TARGETS = FAMILIES["qwen2_5_vl"].lora_targets
PASSES, HEADS = 3, 4
SMALL = ["memory.batch_tokens=64", "backbone.precision=float32", "reasoner.max_new_tokens=12", "reasoner.temperature=0"]
LATER = re.compile(r"^model\.(language_model\.|visual\.)")
THEIRS = {
    "queries": "latents", "proj_in": "proj_in", "norm_x": "layers.0.norm1", "norm_h": "layers.0.norm2",
    "to_q": "layers.0.to_q", "to_kv": "layers.0.to_kv", "to_out": "layers.0.to_out", "ffn.0": "layers.1.0",
    "ffn.1": "layers.1.1", "ffn.3": "layers.1.3", "proj_out": "proj_out", "norm_out": "norm_out",
}  # fmt: skip


def name_of_4_49(name: str) -> str:
    return LATER.sub(lambda m: "model." if m[1] == "language_model." else "visual.", name)


def base_weights(base: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by today's names; transformers writes those of 4.49."""
    tensors: dict[str, Tensor] = {}
    for path in base.glob("*.safetensors"):
        tensors |= load_file(path)
    names = {name: re.sub(r"^model\.(?!language_model\.|visual\.)", "model.language_model.", name) for name in tensors}
    return {re.sub(r"^visual\.", "model.visual.", names[name]): tensor for name, tensor in tensors.items()}


def update_of(shape: tuple[int, ...], generator: torch.Generator, rank: int = 16, size: float = 0.3) -> Tensor:
    """A matrix of that rank, whose numbers have the size of the random weights times `size`."""
    out, inputs = shape
    product = torch.randn(out, rank, generator=generator) @ torch.randn(rank, inputs, generator=generator)
    return product * size / (rank * inputs) ** 0.5


def merged(base: dict[str, Tensor], seed: int, dtype: torch.dtype, only: str = "", rank: int = 16) -> dict[str, Tensor]:
    """The base's weights with an update of rank `rank` on every Linear of the method whose name holds `only`."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in sorted(base.items()):
        changed = re.fullmatch(TARGETS, name.removesuffix(".weight")) and name.endswith(".weight") and only in name
        update = update_of(tuple(tensor.shape), generator, rank) if changed else 0
        weights[name] = (tensor.float() + update).to(dtype)
    return weights


def released_qformer(width: int = 64, dtype: torch.dtype = torch.float32, seed: int = 5) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = QFormer(width, layers=PASSES, heads=HEADS)
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
    tensors = {}
    for name, tensor in module.state_dict().items():
        stem, _, kind = name.rpartition(".") if name != "queries" else (name, "", "")
        theirs = THEIRS[stem] + (f".{kind}" if kind else "")
        tensors[f"knowledge_processor.{theirs}"] = (tensor[None] if name == "queries" else tensor).to(dtype).clone()
    return tensors


def write_release(
    folder: Path,
    base: Path,
    dtype: torch.dtype = torch.bfloat16,
    model_inf: str | None = "equal",
    rename: Callable[[str], str] = name_of_4_49,
    rename_inf: Callable[[str], str] = lambda name: f"model_inf.{name_of_4_49(name)}",
    rank: int = 16,
    shards: int = 3,
) -> dict[str, Tensor]:
    """Writes a release of `base`; `model_inf` is "equal" to it, "different" from it, or None. Returns its tensors."""
    weights = base_weights(base)
    width = weights["model.language_model.embed_tokens.weight"].shape[1]
    tensors = {rename(name): t for name, t in merged(weights, 1, dtype, rank=rank).items()}
    if model_inf is not None:
        second = merged(weights, 2, dtype, only="language_model" if model_inf == "different" else "nothing")
        tensors |= {rename_inf(name): t.clone() for name, t in second.items()}
    tensors |= released_qformer(width, dtype)
    write_shards(folder, tensors, shards)
    return tensors


def write_shards(folder: Path, tensors: dict[str, Tensor], shards: int = 3) -> None:
    """Writes tensors as shards with their index, over those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("model*"):
        old.unlink()
    names = sorted(tensors)
    files = {n: f"model-{i * shards // len(names) + 1:05d}-of-{shards:05d}.safetensors" for i, n in enumerate(names)}
    for file in set(files.values()):
        save_file({n: tensors[n].contiguous() for n in names if files[n] == file}, folder / file)
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def imported(release: Path, base: Path, out: Path, rank: int | None = None) -> tuple[ImportReport, Config]:
    """Imports a release to `out`; the configuration is the one that was written, in float32 and greedy."""
    report = import_checkpoint(str(release), str(base), out, rank, PASSES, HEADS)
    assert isinstance(report, ImportReport)
    return report, load_config(out / "comem.yaml", SMALL)
