"""Earlier names of modules and parameters become today's, by the layouts of released checkpoints and of PEFT."""

import pytest

from comem_ray.model.module_names import current_lora_name, current_name, earlier_names

LAYER, BLOCK = "model.language_model.layers.0.self_attn.q_proj", "model.visual.blocks.1.attn.qkv"
MERGER = "model.visual.merger.mlp.0"


@pytest.mark.parametrize(
    ("name", "current"),
    [
        ("model.layers.0.self_attn.q_proj", LAYER),
        ("language_model.model.layers.0.self_attn.q_proj", LAYER),
        ("base_model.model.model.layers.0.self_attn.q_proj", LAYER),
        ("base_model.model.model.language_model.layers.0.self_attn.q_proj", LAYER),
        ("module.base_model.model.model.layers.0.self_attn.q_proj", LAYER),
        ("_orig_mod.base_model.model.model.layers.0.self_attn.q_proj", LAYER),
        ("visual.blocks.1.attn.qkv", BLOCK),
        ("base_model.model.visual.blocks.1.attn.qkv", BLOCK),
        ("base_model.model.model.visual.blocks.1.attn.qkv", BLOCK),
        ("visual.merger.mlp.0", MERGER),
        (LAYER, LAYER),
        (BLOCK, BLOCK),
        ("model.embed_tokens.weight", "model.language_model.embed_tokens.weight"),
        ("model.norm.weight", "model.language_model.norm.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("model_inf.layers.0.mlp.up_proj", "model_inf.layers.0.mlp.up_proj"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("vision_tower.vision_model.encoder.layers.0.mlp.fc1", "model.vision_tower.encoder.layers.0.mlp.fc1"),
        ("vision_tower.encoder.layer.0.mlp.fc1", "model.vision_tower.encoder.layer.0.mlp.fc1"),
        ("base_model.model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_1"),
        ("model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_1"),
        ("image_newline", "model.image_newline"),
        ("model.text_model.layers.0.mlp.up_proj", "model.text_model.layers.0.mlp.up_proj"),
        ("something.else", "something.else"),
    ],
)
def test_modules(name, current):
    assert current_name(name) == current


@pytest.mark.parametrize("matrix", ["lora_A", "lora_B"])
@pytest.mark.parametrize("infix", ["", ".default", ".encoder"])
def test_lora_matrices_lose_prefix_and_adapter_name(matrix, infix):
    name = f"base_model.model.model.layers.0.self_attn.q_proj.{matrix}{infix}.weight"
    assert current_lora_name(name) == f"{LAYER}.{matrix}.weight"


@pytest.mark.parametrize("module", [LAYER, BLOCK, MERGER])
def test_earlier_names_lead_back(module):
    assert {current_name(name) for name in earlier_names(module)} == {module}
    assert module not in earlier_names(module)
