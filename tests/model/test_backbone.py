"""The backbone on input embeddings is the stock model, and refuses what does not fit."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import FAMILIES, image

from comem_ray.artifacts import ArtifactError
from comem_ray.config import BackboneConfig, ConfigError
from comem_ray.model.backbone import _dtype, load_backbone
from comem_ray.model.module_names import current_name
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
    with pytest.raises(ConfigError, match="is of type 'llama', wanted one of qwen2_5_vl, qwen2_vl"):
        load_backbone(BackboneConfig(model=str(tmp_path)))


def test_auto_precision_is_bfloat16_on_a_gpu():
    assert _dtype("auto", "cuda") == torch.bfloat16
    assert _dtype("float16", "cpu") == torch.float16


@pytest.fixture(params=FAMILIES)
def checkpoint(request, backbones, tmp_path):
    """The folder of a tiny checkpoint, to be damaged."""
    return shutil.copytree(backbones[request.param], tmp_path / "checkpoint")


def load(folder, precision="float32"):
    return load_backbone(BackboneConfig(model=str(folder), precision=precision))


def rewrite(folder, change):
    """Replaces the weights by those that `change` makes of them."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})


def with_nan(tensors):
    next(t for n, t in tensors.items() if n.endswith("norm.weight"))[0] = float("nan")
    return tensors


DAMAGES = {
    "half of the weights": (lambda t: dict(list(t.items())[::2]), r"missing: \d+ of \d+ tensors \(model\."),
    "a layer is missing": (lambda t: {n: x for n, x in t.items() if ".layers.1." not in n}, r"missing: 12 of \d+"),
    "a merged encoder beside it": (
        lambda t: t | {"model_inf.norm.weight": torch.ones(2)},
        r"\(model_inf\.norm\.weight\)",
    ),
    "another width": (lambda t: {n: x[..., :32].clone() for n, x in t.items()}, r"of another shape: \d+ \("),
    "other names": (lambda t: {f"transformer.{n}": x for n, x in t.items()}, r"missing: .*unexpected: .*transformer\."),
    "a NaN": (with_nan, r"holds NaN or infinity in float32, tensors: 1 \(model\.language_model"),
    "infinity": (lambda t: {n: x * float("inf") for n, x in t.items()}, r"holds NaN or infinity"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_weights_that_do_not_all_land_or_are_not_finite_are_refused(checkpoint, damage):
    change, message = DAMAGES[damage]
    rewrite(checkpoint, change)
    with pytest.raises(ArtifactError, match=message) as raised:
        load(checkpoint)
    assert str(checkpoint) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_weights_too_large_for_a_precision_are_refused_with_the_right_one(checkpoint):
    rewrite(checkpoint, lambda t: t | {"lm_head.weight": t["lm_head.weight"] + 1e6})
    load(checkpoint)
    with pytest.raises(ArtifactError, match=r"in float16, .*lm_head.weight.*set backbone.precision to bfloat16"):
        load(checkpoint, "float16")


def test_both_layouts_of_names_make_the_same_model(checkpoint):
    before = load(checkpoint).model.state_dict()
    rewrite(checkpoint, lambda t: {current_name(n): x for n, x in t.items()})
    after = load(checkpoint).model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("config.json", ConfigError, r"it lacks config\.json"),
        ("model.safetensors", ConfigError, r"holds no \.safetensors file"),
        ("preprocessor_config.json", ConfigError, "has no image processor"),
        ("tokenizer.json", ConfigError, "has no tokenizer"),
    ],
)
def test_a_missing_file_is_named(checkpoint, name, error, message):
    (checkpoint / name).unlink()
    with pytest.raises(error, match=message):
        load(checkpoint)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"])
def test_a_pointer_in_place_of_a_file_is_named(checkpoint, name):
    (checkpoint / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ArtifactError, match=f"{name} is a Git LFS pointer"):
        load(checkpoint)


def test_a_wrong_configuration_is_refused_before_it_asks_for_memory(checkpoint):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"text_config": None}))  # 72B is the default
    with pytest.raises(ArtifactError, match="of another shape"):
        load(checkpoint)


def test_nothing_of_generation_config_but_stop_ids_is_kept(checkpoint):
    fields = {"eos_token_id": [258, 65], "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "suppress_tokens": [5]}
    (checkpoint / "generation_config.json").write_text(json.dumps(fields))
    kept = load(checkpoint).model.generation_config
    assert kept.eos_token_id == [258, 65]
    assert (kept.no_repeat_ngram_size, kept.suppress_tokens, kept.repetition_penalty) in [(None,) * 3, (0, None, 1.0)]


def test_an_attention_that_is_not_installed_is_a_wrong_configuration(checkpoint):
    config = BackboneConfig(model=str(checkpoint), precision="float32", attention="flash_attention_2")
    with pytest.raises(ConfigError, match=r"backbone\.attention: 'flash_attention_2' cannot be used here"):
        load_backbone(config)
