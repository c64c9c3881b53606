"""Names of a release, as the authors and later software write them."""

import pytest

from comem_ray.model.released.names import QFORMER_NAMES, authors_name, released_name

BLOCK = "model.visual.blocks.3.attn.qkv.weight"
LAYER = "model.language_model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("name", "part", "ours"),
    [
        ("model.layers.1.mlp.up_proj.weight", "encoder", LAYER),
        ("model.language_model.layers.1.mlp.up_proj.weight", "encoder", LAYER),
        ("visual.blocks.3.attn.qkv.weight", "encoder", BLOCK),
        ("model.visual.blocks.3.attn.qkv.weight", "encoder", BLOCK),
        ("lm_head.weight", "encoder", "lm_head.weight"),
        ("model_inf.model.layers.1.mlp.up_proj.weight", "reasoner", LAYER),
        ("model_inf.layers.1.mlp.up_proj.weight", "reasoner", LAYER),
        ("model_inf.model.language_model.layers.1.mlp.up_proj.weight", "reasoner", LAYER),
        ("model.model_inf.model.layers.1.mlp.up_proj.weight", "reasoner", LAYER),
        ("model_inf.visual.blocks.3.attn.qkv.weight", "reasoner", BLOCK),
        ("model_inf.model.visual.blocks.3.attn.qkv.weight", "reasoner", BLOCK),
        ("model_inf.lm_head.weight", "reasoner", "lm_head.weight"),
        ("model_inf.model.embed_tokens.weight", "reasoner", "model.language_model.embed_tokens.weight"),
        ("model_inf.model.norm.weight", "reasoner", "model.language_model.norm.weight"),
        ("knowledge_processor.latents", "qformer", "queries"),
        ("module.knowledge_processor.layers.0.norm2.bias", "qformer", "norm_h.bias"),
        ("model.knowledge_processor.layers.1.3.weight", "qformer", "ffn.3.weight"),
        ("knowledge_processor.something", "qformer", "something"),
        ("base_model.model.model.layers.1.mlp.up_proj.weight", "encoder", LAYER),
        ("something.weight", "encoder", "something.weight"),
    ],
)
def test_part_and_name(name, part, ours):
    assert released_name(name) == (part, ours)


def test_buffers_are_no_weights():
    assert released_name("model.layers.0.self_attn.rotary_emb.inv_freq") is None


def test_there_and_back():
    names = ["model.layers.1.mlp.up_proj.weight", "visual.merger.ln_q.weight", "lm_head.weight"]
    names += [f"model_inf.{name}" for name in names] + [f"knowledge_processor.{name}" for name in QFORMER_NAMES]
    for name in names:
        released = released_name(name)
        assert released is not None
        assert authors_name(released) == name
