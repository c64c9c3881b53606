"""Cached hidden states are those of the encoder."""

import random
from pathlib import Path

import torch
from support.training_run import load_backbones

from comem_ray.model.memory_encoder import MemoryEncoder
from examples.countries.backbone import BASE_LORA, TOWER
from examples.countries.train.hidden_states import item_hidden_states
from examples.countries.train.reading import qformer_memory
from examples.countries.train.stages import Run


def test_hidden_states_are_those_of_the_encoder_without_its_lora(finished: Run, tmp_path: Path) -> None:
    _, cached, _ = load_backbones(finished, TOWER, BASE_LORA)
    rng, sampler = random.Random(0), finished.sampler(cached)
    items = [sampler.draw_item(rng) for _ in range(5)]
    states = item_hidden_states(cached, items, 300, tmp_path / "states.safetensors")
    assert len({len(h) for h in states.hidden}) > 1
    encoder = MemoryEncoder(finished.config(), backbone=cached)
    for hidden, sequence, (_, text, image) in zip(states.hidden, states.sequences, items, strict=True):
        assert sequence.ids == encoder.sequence(text, image).ids
        batch = cached.sequencer.batch([sequence], padding="right")
        with torch.no_grad():
            alone = cached.hidden_states(batch, cached.embed(batch, cached.image_features(batch)))[0]
        torch.testing.assert_close(hidden, alone, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        together = qformer_memory(encoder.adapter.qformer, states.hidden)
        memory = encoder.forward(states.sequences)  # its LoRA is on, but B = 0
    torch.testing.assert_close(together, memory, atol=1e-3, rtol=1e-3)
    again = item_hidden_states(cached, items, 300, tmp_path / "states.safetensors")  # now from the file
    assert all(torch.equal(a, b) for a, b in zip(again.hidden, states.hidden, strict=True))
