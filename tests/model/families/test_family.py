"""What families share: positions of text, patterns of module names, and the refusal of limits."""

from __future__ import annotations

import re
from types import SimpleNamespace

import torch

from comem_ray.config import ConfigError, PixelLimitsConfig
from comem_ray.model.families.family import broken_limits, lora_targets, text_positions


def test_positions_count_tokens_and_leave_out_padding_on_both_sides() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    positions = text_positions(None, SimpleNamespace(attention_mask=mask))
    assert positions.shape == (1, 3, 5)
    assert positions[0, 0].tolist() == [0, 0, 0, 1, 2]
    assert positions[0, 1].tolist() == [0, 1, 2, 3, 4]
    assert positions[0, 2, :2].tolist() == [0, 1]
    assert text_positions(None, SimpleNamespace(attention_mask=torch.ones(1, 3000, dtype=torch.long))).max() == 2999


def test_targets_match_whole_names_alone() -> None:
    pattern = re.compile(lora_targets((r"text\.layers\.\d+", "q_proj|fc1"), ("connector", "proj")))
    wanted = ["model.text.layers.0.attn.q_proj", "model.text.layers.11.fc1", "model.connector.a.proj"]
    assert all(pattern.fullmatch(name) for name in wanted)
    others = ["lm_head", "model.text.embed", "model.text.layers.0.attn", "model.connector", "x.model.connector.proj"]
    assert not any(pattern.fullmatch(name) for name in others)


def test_the_refusal_of_limits_names_the_field_and_the_way_out() -> None:
    error = broken_limits(PixelLimitsConfig(max=5), "item_pixels", "because")
    assert isinstance(error, ConfigError)
    assert "backbone.item_pixels" in str(error)
    assert "None to 5: because. Set item_pixels to {min: null, max: null}" in str(error)
