"""A random backbone is an ordinary checkpoint, the same for the same seed."""

import pytest
import torch
from safetensors.torch import load_file
from support.tiny import FAMILIES
from transformers import AutoModelForImageTextToText, AutoTokenizer

from comem_ray.model.random_backbone import write_random_backbone
from comem_ray.model.random_tokenizers import CONTROL_TOKENS, byte_tokenizer


def test_the_tokenizer_has_one_token_per_byte_and_the_control_tokens():
    tokenizer = byte_tokenizer()
    text = "ö <|im_start|>x"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == len("ö ".encode()) + 1 + 1
    assert tokenizer.decode(ids) == text
    assert len(tokenizer) == 256 + len(CONTROL_TOKENS)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_loads_it(backbones, family):
    model = AutoModelForImageTextToText.from_pretrained(backbones[family])
    tokenizer = AutoTokenizer.from_pretrained(backbones[family])
    assert model.config.model_type == family
    assert model.config.image_token_id == tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_the_seed_decides_the_weights(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_random_backbone(tmp_path / name, seed=seed)
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)
