"""Tokenizer and image processor: refused in one sentence where they are missing, damaged or of another model."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoConfig

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ConfigError
from comem_ray.model.processors import load_image_processor, load_tokenizer
from comem_ray.model.random_tokenizers import byte_tokenizer

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def folder(backbones, tmp_path) -> Path:
    return shutil.copytree(backbones["qwen2_5_vl"], tmp_path / "checkpoint")


def settings(folder, **fields):
    config = AutoConfig.from_pretrained(folder)
    for name, value in fields.items():
        setattr(config, name, value)
    return config


def test_those_of_the_checkpoint_fit(folder):
    assert load_tokenizer(folder, 263, settings(folder)).decode([65]) == byte_tokenizer().decode([65])
    assert load_image_processor(folder, settings(folder)).merge_size == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tokenizer.json", LFS, "is a Git LFS pointer"),
        ("tokenizer.json", "", "is empty"),
        ("tokenizer.json", '{"version": "1.0"', "is not JSON"),
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "Other"}}', "the tokenizer cannot be used"),
        ("tokenizer_config.json", "[]", "holds a list"),
        ("preprocessor_config.json", LFS, "is a Git LFS pointer"),
        ("preprocessor_config.json", "not JSON", "is not JSON"),
        ("preprocessor_config.json", '{"image_processor_type": "Other"}', "cannot be used"),
    ],
)
def test_damaged_files_are_named(folder, name, text, message):
    (folder / name).write_text(text)
    load = load_tokenizer if name.startswith("tokenizer") else load_image_processor
    arguments = (263, settings(folder)) if name.startswith("tokenizer") else (settings(folder),)
    with pytest.raises(ArtifactError, match=message) as raised:
        load(folder, *arguments)
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_files_are_named(folder):
    config = settings(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"has no image processor: it lacks preprocessor_config\.json"):
        load_image_processor(folder, config)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"has no tokenizer: it lacks tokenizer\.json or vocab\.json and merges\.txt"):
        load_tokenizer(folder, 263, settings(folder))


def test_a_tokenizer_of_another_model_is_refused(folder):
    with pytest.raises(ConfigError, match="has 263 tokens, the model 200"):
        load_tokenizer(folder, 200, settings(folder))
    with pytest.raises(ConfigError, match=r"<\|image_pad\|> is token \d+, config.json says 5"):
        load_tokenizer(folder, 263, settings(folder, image_token_id=5))
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] == "<|endoftext|>"]
    path.write_text(json.dumps(data))
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match=r"lacks 5 control tokens \(<\|im_start\|>, .* and 2 more\)"):
        load_tokenizer(folder, 263, settings(folder))


@pytest.mark.parametrize("field", ["patch_size", "merge_size", "temporal_patch_size"])
def test_an_image_processor_that_cuts_other_patches_is_refused(folder, field):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: 7}))
    with pytest.raises(ConfigError, match=rf"preprocessor_config\.json says {field} 7, the vision tower has"):
        load_image_processor(folder, settings(folder))
