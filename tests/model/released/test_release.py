"""Tensors that are missing, unexpected or of another shape are named, and nothing is left behind."""

import pytest
import torch
from support.release import imported, write_shards

from comem_ray.artifacts import ArtifactError


def without(*names):
    return lambda tensors: {n: t for n, t in tensors.items() if n not in names}


def with_tensor(name, tensor):
    return lambda tensors: tensors | {name: tensor}


Q, LATENTS = "model.layers.1.self_attn.q_proj.weight", "knowledge_processor.latents"
FAULTS = {
    "a tensor is missing": (without(Q), rf"missing: 1 of \d+ tensors \({Q} of shape \[64, 64\]\)"),
    "no Q-Former": (
        lambda tensors: {n: t for n, t in tensors.items() if "knowledge" not in n},
        "holds no knowledge_processor",
    ),
    "half a Q-Former": (
        without("knowledge_processor.proj_in.bias"),
        r"missing: 1 of \d+ tensors \(knowledge_processor.proj_in.bias of shape \[64\]\)",
    ),
    "no queries": (without(LATENTS), r"knowledge_processor.latents of shape \[1, 8, 64\]"),
    "half a model_inf": (
        without("model_inf.model.layers.2.mlp.up_proj.weight"),
        r"missing: 1 .*model_inf.model.layers.2.mlp.up_proj.weight of shape \[96, 64\]",
    ),
    "another shape": (with_tensor(Q, torch.ones(64, 32)), rf"{Q} is \[64, 32\], want \[64, 64\]"),
    "a vector": (with_tensor(Q, torch.ones(64)), rf"{Q} is \[64\], want \[64, 64\]"),
    "another shape of the Q-Former": (
        with_tensor("knowledge_processor.layers.0.to_kv.weight", torch.ones(64, 64)),
        r"to_kv.weight is \[64, 64\], want \[128, 64\]",
    ),
    "a tensor that nobody knows": (with_tensor("model.layers.9.x", torch.ones(2)), r"unexpected: 1 .*model.layers.9.x"),
    "one tensor under two names": (
        lambda t: t | {"model.language_model.norm.weight": t["model.norm.weight"].clone()},
        "under two names, .*want it once",
    ),
    "another norm": (
        lambda t: t | {"model.norm.weight": t["model.norm.weight"] * 1.5},
        r"differs from the base .*model.norm.weight of shape \[64\], by up to 0.5",
    ),
    "another norm of model_inf": (
        lambda t: t | {"model_inf.model.norm.weight": t["model.norm.weight"] + 1},
        r"differs from the base .*model_inf.model.norm.weight",
    ),
    "another patch embedding": (
        lambda t: t | {"visual.patch_embed.proj.weight": t["visual.patch_embed.proj.weight"] + 1},
        r"visual.patch_embed.proj.weight of shape \[32, 3, 2, 14, 14\]",
    ),
    "another bias": (
        lambda t: t | {Q.replace("weight", "bias"): t[Q.replace("weight", "bias")] + 1},
        r"q_proj.bias of shape \[64\], by up to 1",
    ),
    "a Linear that is another": (
        lambda t: t | {Q: torch.randn(64, 64, generator=torch.Generator().manual_seed(1))},
        rf"{Q} \(\[64, 64\] in the release, \[64, 64\] in the base\) differs from the base by a matrix of rank",
    ),
    "a NaN": (lambda t: t | {Q: t[Q].clone().index_fill_(0, torch.tensor([3]), torch.nan)}, f"{Q} holds NaN or inf"),
    "a NaN in the Q-Former": (
        lambda t: t | {LATENTS: t[LATENTS] * torch.inf},
        "knowledge_processor.latents holds NaN or infinity",
    ),
    "a quantized weight": (
        lambda t: t | {Q: torch.ones(64, 64, dtype=torch.int8)},
        rf"{Q} of shape \[64, 64\] is stored as I8, want F64, F32, F16, BF16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_named_and_nothing_is_left(fault, release, backbones, tmp_path):
    change, message = FAULTS[fault]
    write_shards(tmp_path / "release", change(release[1]))
    with pytest.raises(ArtifactError, match=message) as raised:
        imported(tmp_path / "release", backbones["qwen2_5_vl"], tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["release"]
