"""The names of the authors' released checkpoints: which of the three models a tensor belongs to, and its name in ours.

A release is one model in the naming of transformers 4.49 with two guests: `model_inf.*` is a second whole model (the
one that answers), `knowledge_processor.*` is the Q-Former. What stands outside is the encoder, its LoRA merged.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from comem_ray.model.module_names import current_name, earlier_names

Part = Literal["encoder", "reasoner", "qformer"]
QFORMER, REASONER = "knowledge_processor", "model_inf"

_WRAPPERS = re.compile(r"^(?:(?:base_model\.model|module|_orig_mod)\.)+")
_GUEST = re.compile(rf"^(?:model\.)?({REASONER}|{QFORMER})\.(.+)$")
_LM_HEAD = re.compile(r"^(?:language_model|model)\.lm_head\.")
_BUFFERS = re.compile(r"\.inv_freq$")  # of rotary embeddings: computed, no weight

# Of the Q-Former: the release's name, and that of the same parameter in comem_ray.model.qformer.
QFORMER_NAMES = {
    "latents": "queries",
    "proj_in.weight": "proj_in.weight",
    "proj_in.bias": "proj_in.bias",
    "layers.0.norm1.weight": "norm_x.weight",  # of the item's tokens
    "layers.0.norm1.bias": "norm_x.bias",
    "layers.0.norm2.weight": "norm_h.weight",  # of the queries
    "layers.0.norm2.bias": "norm_h.bias",
    "layers.0.to_q.weight": "to_q.weight",
    "layers.0.to_kv.weight": "to_kv.weight",  # rows: keys first, then values, in both
    "layers.0.to_out.weight": "to_out.weight",
    "layers.1.0.weight": "ffn.0.weight",
    "layers.1.0.bias": "ffn.0.bias",
    "layers.1.1.weight": "ffn.1.weight",
    "layers.1.3.weight": "ffn.3.weight",
    "proj_out.weight": "proj_out.weight",
    "proj_out.bias": "proj_out.bias",
    "norm_out.weight": "norm_out.weight",
    "norm_out.bias": "norm_out.bias",
}


class ReleasedName(NamedTuple):
    """The part of a release that a tensor belongs to, and its name there: today's, or for the Q-Former ours."""

    part: Part
    name: str


def released_name(name: str) -> ReleasedName | None:
    """What a tensor of a release is; None for a buffer that is computed, not stored. Names unknown stay as they are."""
    if _BUFFERS.search(name):
        return None
    name = _WRAPPERS.sub("", name)
    guest = _GUEST.match(name)
    if guest is None:
        return ReleasedName("encoder", _backbone_name(name))
    model, rest = guest.groups()
    if model == QFORMER:
        return ReleasedName("qformer", QFORMER_NAMES.get(rest, rest))
    return ReleasedName("reasoner", _backbone_name(rest))


def authors_name(released: ReleasedName) -> str:
    """The name that the authors' code gives to a tensor, for messages about one that is missing."""
    if released.part == "qformer":
        ours = {name: theirs for theirs, name in QFORMER_NAMES.items()}
        return f"{QFORMER}.{ours.get(released.name, released.name)}"
    name = earlier_names(released.name)[0] if released.name.startswith("model.") else released.name
    return name if released.part == "encoder" else f"{REASONER}.{name}"


def _backbone_name(name: str) -> str:
    return current_name(_LM_HEAD.sub("lm_head.", name))
