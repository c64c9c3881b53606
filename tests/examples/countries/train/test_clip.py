"""The training of the CLIP model at toy size, and the figures of the weights that ship."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.clip_recall import real_recall, synthetic_recall, text_recall

from comem_ray.config import ClipConfig
from comem_ray.retrieval.clip import ClipEncoder
from examples.countries.prepare import WEIGHTS
from examples.countries.train import clip

STEPS = {"images": 2, "lookalikes": 2, "texts": 2}


def _encoder(folder: Path) -> ClipEncoder:
    return ClipEncoder(
        ClipConfig(model=str(folder / f"{clip.NAME}.json"), pretrained=str(folder / f"{clip.NAME}.safetensors"))
    )


def test_a_rerun_after_a_kill_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "BATCH", 32)
    clip.train(tmp_path / "whole", invented=40, steps=STEPS)
    clip.train(tmp_path / "cut", invented=40, steps=STEPS)
    weights = tmp_path / "cut" / f"{clip.NAME}.safetensors"
    weights.unlink()  # as if killed in the last phase
    (tmp_path / "cut" / "phases" / "3-texts.safetensors").unlink()
    clip.train(tmp_path / "cut", invented=40, steps=STEPS)
    first, second = load_file(weights), load_file(tmp_path / "whole" / f"{clip.NAME}.safetensors")
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert _encoder(tmp_path / "cut").embed_texts(["Where is France?"]).shape == (1, 128)


@pytest.fixture(scope="module")
def shipped() -> ClipEncoder:
    return _encoder(WEIGHTS / "clip")


def test_shipped_weights_are_small() -> None:
    files = [p for p in (WEIGHTS / "clip").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 8_000_000


def test_held_out_countries_are_found(shipped: ClipEncoder) -> None:
    first, third, _ = real_recall(shipped)
    assert first.recall >= 0.92
    assert third.recall >= 0.97


def test_invented_countries_are_found(shipped: ClipEncoder) -> None:
    assert synthetic_recall(shipped)[0].recall >= 0.92


def test_a_question_that_names_a_country_finds_its_text(shipped: ClipEncoder) -> None:
    assert text_recall(shipped)[0].recall >= 0.9
