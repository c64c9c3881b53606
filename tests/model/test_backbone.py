"""The backbone on input embeddings is the stock model, and refuses what does not fit."""

import json

import pytest
import torch
from support.tiny import FAMILIES, image

from comem_ray.config import BackboneConfig, ConfigError
from comem_ray.model.backbone import _dtype, load_backbone
from comem_ray.prompts import question_prompt


@pytest.fixture(params=FAMILIES)
def backbone(request, make_config):
    return load_backbone(make_config(request.param).backbone)


def test_it_is_frozen_and_in_evaluation_mode(backbone):
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert not backbone.model.training
    assert (backbone.width, backbone.dtype) == (64, torch.float32)


def test_hidden_states_of_embeddings_are_those_of_the_stock_forward(backbone):
    sequences = [backbone.sequencer.sequence(question_prompt(f"Question {i}?", image(i))) for i in range(2)]
    batch = backbone.sequencer.batch(sequences, "left")
    with torch.no_grad():
        embeds = backbone.embed(batch, backbone.image_features(batch))
        logits = backbone.model.lm_head(backbone.hidden_states(batch, embeds))
        expected = backbone.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            pixel_values=batch.pixel_values,
            image_grid_thw=batch.grids,
            mm_token_type_ids=batch.token_types,
        ).logits
    real = batch.attention_mask.bool()
    torch.testing.assert_close(logits[real], expected[real])


def test_memory_of_another_length_is_refused_with_both_numbers(backbone):
    sequences = [backbone.sequencer.sequence(question_prompt("Question?", None), memory=8)]
    batch = backbone.sequencer.batch(sequences, "left")
    assert backbone.image_features(batch) is None
    with pytest.raises(ValueError, match="placeholders for 8 memory vectors, got 7"):
        backbone.embed(batch, None, torch.zeros(7, 64))


def test_another_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ConfigError, match="is of type 'llama', wanted qwen2_5_vl or qwen2_vl"):
        load_backbone(BackboneConfig(model=str(tmp_path)))


def test_auto_precision_is_bfloat16_on_a_gpu():
    assert _dtype("auto", "cuda") == torch.bfloat16
    assert _dtype("float16", "cpu") == torch.float16
