"""Each item is compressed on its own, whatever it is encoded with."""

import dataclasses

import pytest
import torch
from support.tiny import FAMILIES, image
from torch import nn

from comem_ray.finite import NotFinite
from comem_ray.model.memory_encoder import MemoryEncoder, length_buckets

ITEMS = [(f"Item {i}: " + "some text " * (i % 4), image(i, 40 + 10 * i, 44)) for i in range(7)]


@pytest.fixture(scope="module", params=FAMILIES)
def encoder(request, make_config):
    encoder = MemoryEncoder(make_config(request.param, memory={"batch_tokens": 300}))
    torch.manual_seed(1)
    for name, parameter in encoder.backbone.model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.1)
    return encoder


def test_shape_and_dtype(encoder):
    memory = encoder.encode(ITEMS[:2])
    assert memory.shape == (2, 8, encoder.backbone.width)
    assert memory.dtype == torch.bfloat16
    assert memory.isfinite().all()


def test_one_by_one_equals_a_batch(encoder):
    sequences = [encoder.sequence(*item) for item in ITEMS]
    with torch.no_grad():
        together = encoder.forward(sequences)
        alone = torch.cat([encoder.forward([s]) for s in sequences])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    # Buckets and their order do not matter either.
    torch.testing.assert_close(encoder.encode(ITEMS).float(), alone, atol=0.03, rtol=0.01)


def test_text_image_and_adapter_all_count(encoder):
    text, own_image = ITEMS[1]
    base, other_text, other_image = encoder.encode([(text, own_image), ("Other", own_image), (text, image(99, 50, 44))])
    assert (base - other_text).abs().max() > 0.05
    assert (base - other_image).abs().max() > 0.05
    sequence = [encoder.sequence(text, own_image)]
    batch = encoder.backbone.sequencer.batch(sequence, "right")
    with torch.no_grad():
        embeds = encoder.backbone.embed(batch, encoder.backbone.image_features(batch))
        frozen = encoder.backbone.hidden_states(batch, embeds)
        adapter_off = encoder.adapter.qformer(frozen, batch.attention_mask.bool())
        assert not torch.allclose(encoder.forward(sequence), adapter_off, atol=0.05)


def test_hidden_states_are_those_after_the_final_norm(encoder):
    batch = encoder.backbone.sequencer.batch([encoder.sequence(*ITEMS[0])], "right")
    with torch.no_grad():
        embeds = encoder.backbone.embed(batch, encoder.backbone.image_features(batch))
        hidden = encoder.backbone.hidden_states(batch, embeds)
        logits = encoder.backbone.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            pixel_values=batch.pixel_values,
            image_grid_thw=batch.grids,
            mm_token_type_ids=batch.token_types,
        ).logits
    torch.testing.assert_close(encoder.backbone.model.lm_head(hidden), logits)


def test_length_buckets():
    lengths = [5, 100, 7, 40, 6, 39, 300]
    groups = list(length_buckets(lengths, 120))
    assert sorted(i for g in groups for i in g) == list(range(7))
    assert all(max(lengths[i] for i in g) * len(g) <= 120 for g in groups if len(g) > 1)
    assert groups[0] == [6]  # too long for any company
    assert list(length_buckets([], 10)) == []


def test_memory_that_is_not_finite_is_refused_with_its_positions(make_config):
    """Items with one image are damaged by its features; the others are named nowhere."""
    encoder = MemoryEncoder(make_config(memory={"batch_tokens": 300}))
    sequences = [encoder.sequence(*item) for item in ITEMS]
    for n in (1, 4):
        sequences[n] = dataclasses.replace(
            sequences[n], pixels=[torch.full_like(p, torch.nan) for p in sequences[n].pixels]
        )
    with pytest.raises(NotFinite, match="the memory of 2 of 7 items is NaN or infinite in float32") as raised:
        encoder.encode_sequences(sequences)
    assert raised.value.positions == [1, 4]
    assert isinstance(raised.value, ValueError)
    whole = [s for n, s in enumerate(sequences) if n not in raised.value.positions]
    assert encoder.encode_sequences(whole).isfinite().all()


@pytest.mark.parametrize(
    ("precision", "advice"), [("float16", "to bfloat16"), ("bfloat16", "backbone.precision: float32")]
)
def test_a_backbone_that_overflows_is_told_the_right_precision(make_config, precision, advice):
    encoder = MemoryEncoder(make_config(backbone={"precision": precision}))
    with torch.no_grad():  # float16 ends at 65504, bfloat16 at 3.4e38
        encoder.adapter.qformer.proj_out.bias.fill_(torch.inf)
    with pytest.raises(NotFinite, match=f"the memory of 2 of 2 items .* in {precision}: .*{advice}") as raised:
        encoder.encode(ITEMS[:2])
    assert raised.value.positions == [0, 1]
