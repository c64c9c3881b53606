"""A release beside its base: every tensor of both by one name, checked for presence and shape before any is read.

The base's own config.json says which tensors there are. The three parts of a release are those of
comem_ray.model.released.names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ConfigError
from comem_ray.model.checkpoint import UNUSABLE, checkpoint_config, unusable
from comem_ray.model.families import family_of
from comem_ray.model.module_names import current_name
from comem_ray.model.qformer import QFormer
from comem_ray.model.released.names import QFORMER, Part, ReleasedName, authors_name, released_name
from comem_ray.model.released.shards import StoredTensor, stored_tensors
from comem_ray.weights import Shapes, require_fit

LM_HEAD, EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"
_OPTIONAL_OF_REASONER = ("model.visual.", LM_HEAD, EMBEDDING)  # which it may share with the encoder

Tensors = dict[str, StoredTensor]


@dataclass(frozen=True)
class Release:
    """Stored tensors by today's names. `reasoner` is empty where the release holds no second model."""

    folder: Path
    base_folder: Path
    base: Tensors
    encoder: Tensors
    reasoner: Tensors
    qformer: Tensors  # by the names of comem_ray.model.qformer
    linears: frozenset[str]  # names of the weights that LoRA may have changed


def open_release(folder: Path, base_folder: Path) -> Release:
    """Reads the headers of both. Raises ConfigError for a folder that is not a checkpoint, ArtifactError where a file
    is missing or damaged, or where a tensor is missing, unexpected or of another shape than the base has.
    """
    shapes, linears, tied = base_shapes(base_folder)
    base = base_tensors(base_folder, shapes, tied)
    width = shapes[EMBEDDING][1]
    parts = _parts(folder)
    if not parts["qformer"]:
        raise ArtifactError(
            f"{folder} holds no {QFORMER}.* (the Q-Former): want a release of CoMEM's authors, not a backbone alone"
        )
    _require_release(folder, base_folder, parts, shapes, tied, width)
    return Release(folder, base_folder, base, parts["encoder"], parts["reasoner"], parts["qformer"], linears)


def base_shapes(folder: Path) -> tuple[Shapes, frozenset[str], bool]:
    """Shapes of all tensors of config.json, names of the weights that may carry LoRA, and whether lm_head is tied.

    Raises ConfigError for another family of models, ArtifactError where config.json cannot be used.
    """
    settings = checkpoint_config(folder)
    try:
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(settings)
    except (*UNUSABLE, RuntimeError) as error:
        raise unusable(folder, error) from error
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    targets = re.compile(family_of(settings).lora_targets)
    linears = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear) and targets.fullmatch(n)}
    tied = bool(settings.tie_word_embeddings or getattr(settings.text_config, "tie_word_embeddings", False))
    return shapes, frozenset(linears), tied


def lora_pattern(base_folder: Path) -> str:
    """The pattern of the modules that carry LoRA, as PEFT reads it."""
    return family_of(checkpoint_config(base_folder)).lora_targets


def base_tensors(folder: Path, shapes: Shapes, tied: bool) -> Tensors:
    """The base's tensors by today's names, all of them. Raises ArtifactError where they are not those of `shapes`."""
    stored = stored_tensors(folder)
    base = {current_name(name): tensor for name, tensor in stored.items() if released_name(name) is not None}
    if tied and EMBEDDING in base:
        base.setdefault(LM_HEAD, base[EMBEDDING])
    advice = "Want the weights that config.json describes, all of them: copy or download the base again"
    require_fit(folder, {name: tensor.shape for name, tensor in base.items()}, shapes, advice)
    return base


def qformer_sizes(qformer: Tensors, passes: int, heads: int) -> dict[str, int]:
    """The sizes of a released Q-Former. Passes and heads leave no trace in the shapes; the rest does.

    Raises ConfigError where the attention cannot be divided among so many heads.
    """
    inner = qformer["to_q.weight"].shape[0]
    if inner % heads:
        raise ConfigError(
            f"the Q-Former's attention has width {inner}, which {heads} heads do not divide: name its heads"
        )
    queries = qformer["queries"].shape[-2]
    return {"queries": queries, "layers": passes, "heads": heads, "head_width": inner // heads}


def _parts(folder: Path) -> dict[Part, Tensors]:
    parts: dict[Part, Tensors] = {"encoder": {}, "reasoner": {}, "qformer": {}}
    for name, tensor in stored_tensors(folder).items():
        released = released_name(name)
        if released is None:
            continue
        part = parts[released.part]
        if released.name in part:
            twice = f"{part[released.name].name} and {name}"
            raise ArtifactError(f"{folder} holds one tensor under two names, {twice}: want it once")
        part[released.name] = tensor
    return parts


def _require_release(
    folder: Path, base_folder: Path, parts: dict[Part, Tensors], shapes: Shapes, tied: bool, width: int
) -> None:
    wanted = {ReleasedName("encoder", name): shape for name, shape in shapes.items()}
    wanted |= {ReleasedName("qformer", name): shape for name, shape in _qformer_shapes(parts["qformer"], width).items()}
    if parts["reasoner"]:
        wanted |= {ReleasedName("reasoner", name): shape for name, shape in shapes.items()}
    for released in list(wanted):
        if released.name not in parts[released.part] and _may_be_absent(released, parts["reasoner"], tied):
            del wanted[released]

    def spelled(released: ReleasedName) -> str:
        tensor = parts[released.part].get(released.name)
        return f"{authors_name(released)} of shape {list(wanted[released])}" if tensor is None else tensor.name

    advice = f"Want the whole release, and as --base the checkpoint that it was trained from; here it is {base_folder}"
    for some in (("encoder", "reasoner"), ("qformer",)):  # with a wrong base, the message is about the backbone
        present = {tensor.name: tensor.shape for part in some for tensor in parts[part].values()}
        names = {spelled(released): shape for released, shape in wanted.items() if released.part in some}
        require_fit(folder, present, names, advice)


def _may_be_absent(released: ReleasedName, reasoner: Tensors, tied: bool) -> bool:
    """Whether a release is whole without this tensor, which others of it stand for."""
    if released.name == LM_HEAD and tied:
        return True
    if released.part != "reasoner" or not released.name.startswith(_OPTIONAL_OF_REASONER):
        return False
    return not (released.name.startswith("model.visual.") and any(n.startswith("model.visual.") for n in reasoner))


def _qformer_shapes(qformer: Tensors, width: int) -> Shapes:
    """The shapes that a Q-Former of this width has, given its own number of queries and width of attention."""
    latents, to_q = qformer.get("queries"), qformer.get("to_q.weight")
    leading = latents is not None and len(latents.shape) == 3  # (1, Q, D) in the authors' code
    queries = latents.shape[-2] if latents is not None and len(latents.shape) > 1 else 8
    inner = to_q.shape[0] if to_q is not None and to_q.shape else width
    with torch.device("meta"):
        module = QFormer(width, queries=queries, heads=1, head_width=inner)
    shapes: Shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    return shapes | {"queries": (1, queries, width)} if leading or latents is None else shapes
