"""A checkpoint's fingerprint is that of the model, not of the software that wrote it; what is damaged is named."""

import json
import shutil
from pathlib import Path

import pytest

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ConfigError
from comem_ray.model.checkpoint import (
    INDEX,
    checkpoint_config,
    checkpoint_fingerprint,
    checkpoint_folder,
    named_stop_ids,
    weight_files,
)
from comem_ray.model.random_backbone import write_random_backbone


def test_fingerprint_is_the_models_own(tmp_path):
    write_random_backbone(tmp_path)
    before = checkpoint_fingerprint(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"transformers_version": "99"}, indent=4))
    assert checkpoint_fingerprint(tmp_path) == before
    path.write_text(json.dumps(config | {"vision_start_token_id": 7}))
    assert checkpoint_fingerprint(tmp_path) != before
    write_random_backbone(tmp_path, seed=1)
    assert checkpoint_fingerprint(tmp_path) != before


@pytest.fixture
def folder(backbones, tmp_path) -> Path:
    return shutil.copytree(backbones["qwen2_5_vl"], tmp_path / "checkpoint")


def into_shards(folder: Path, index: object) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / INDEX).write_text(index if isinstance(index, str) else json.dumps(index))


SHARDS = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"metadata": {}, "weight_map": SHARDS}, r"not there \(1: model-00002-of-00002\.safetensors\)"),
        ({"metadata": {}, "weight_map": {}}, "lacks a weight_map"),
        ({"weight_map": {"a": SHARDS["a"]}}, "or its metadata"),
        ("{", "is not JSON"),
        ("", "is empty"),
    ],
)
def test_an_index_that_leads_nowhere_is_refused(folder, index, message):
    into_shards(folder, index)
    for call in (weight_files, checkpoint_fingerprint):
        with pytest.raises(ArtifactError, match=message):
            call(folder)


def test_shards_need_their_index(folder):
    into_shards(folder, "{}")
    (folder / INDEX).unlink()
    with pytest.raises(ConfigError, match=f"has shards, but no {INDEX}"):
        weight_files(folder)


def test_a_whole_index_is_accepted(folder):
    into_shards(folder, {"metadata": {}, "weight_map": {"a": SHARDS["a"]}})
    assert [path.name for path in weight_files(folder)] == [SHARDS["a"]]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pointer_is_named_before_a_fingerprint_is_compared(folder, name):
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ArtifactError, match=rf"{name} is a Git LFS pointer"):
        checkpoint_fingerprint(folder)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"model_type": "mplug_owl3"}, ConfigError, "is of type 'mplug_owl3', wanted one of qwen2_5_vl, qwen2_vl"),
        ({"model_type": None}, ConfigError, "is of type None"),
        ({"model_type": "qwen2"}, ConfigError, "is of type 'qwen2'"),
        ({"text_config": []}, ArtifactError, r"config\.json does not describe a model"),
        ({"text_config": {"hidden_size": "64"}}, ArtifactError, r"config\.json does not describe a model"),
    ],
)
def test_a_configuration_that_makes_no_model_is_refused(folder, fields, error, message):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(error, match=message) as raised:
        checkpoint_config(folder)
    assert "\n" not in str(raised.value)


def test_a_rope_of_another_width_is_refused(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["rope_parameters"]["mrope_section"] = [1, 1, 1]
    path.write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="is not half of the heads' width, 16"):
        checkpoint_config(folder)


def test_a_folder_that_is_a_file_and_a_folder_without_config_are_wrong_configurations(folder):
    with pytest.raises(ConfigError, match=r"config\.json is a file: name the folder of the checkpoint"):
        checkpoint_folder(str(folder / "config.json"))
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"it lacks config\.json"):
        checkpoint_fingerprint(folder)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ('{"eos_token_id": 258}', [258]),
        ('{"eos_token_id": [258, 256, "x", null]}', [258, 256]),
        ('{"eos_token_id": null}', []),
        ("{}", []),
        ("[1]", []),
        ("{", []),
        (None, []),
    ],
)
def test_the_stop_ids_of_a_checkpoint_may_be_missing_or_damaged(folder, text, ids):
    path = folder / "generation_config.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert named_stop_ids(folder) == ids
