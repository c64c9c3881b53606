"""The CLIP encoder against open_clip itself."""

import json
import threading
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.tiny import image
from support.tiny_clip import ARCHITECTURE, write_clip

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ClipConfig, ConfigError
from comem_ray.finite import NotFinite
from comem_ray.retrieval.clip import ClipEncoder, locate


@pytest.fixture
def local(tmp_path):
    """A function that writes a model configuration and weights, and returns the section `clip`."""

    def write(*args, seed=1, architecture=ARCHITECTURE, preprocessing=None, **fields):
        section, model = write_clip(tmp_path, *args, seed=seed, architecture=architecture, preprocessing=preprocessing)
        return ClipConfig(**{**section, **fields}), model

    return write


def test_vectors_are_those_of_open_clip(local):
    config, model = local()
    encoder = ClipEncoder(config)
    images = [image(i, 60 + i, 40) for i in range(5)]
    texts = ["Danube: the river", "short", "", "Węgry 匈牙利 " * 40]
    transform = open_clip.image_transform(32, is_train=False)
    with torch.no_grad():
        want_images = model.encode_image(torch.stack([transform(p) for p in images]), normalize=True)
        want_texts = model.encode_text(open_clip.tokenize(texts, context_length=16), normalize=True)
    np.testing.assert_allclose(encoder.embed_images(images), want_images, atol=1e-6)
    np.testing.assert_allclose(encoder.embed_texts(texts), want_texts, atol=1e-6)
    assert encoder.embed_images(images).dtype == np.float32
    assert encoder.width == 24
    assert encoder.embed_texts([]).shape == encoder.embed_images([]).shape == (0, 24)


def test_batches_do_not_change_the_vectors(local):
    config, _ = local(batch_size=2)
    images = [image(i) for i in range(5)]
    whole = ClipEncoder(config.model_copy(update={"batch_size": 64})).embed_images(images)
    np.testing.assert_allclose(ClipEncoder(config).embed_images(images), whole, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)


def test_any_mode_of_image_is_taken(local):
    encoder = ClipEncoder(local()[0])
    for mode in ("L", "RGBA", "P", "CMYK"):
        assert encoder.embed_images([image(0).convert(mode)]).shape == (1, 24)


def test_the_preprocessing_of_a_local_configuration_holds(local):
    squash, _ = local(preprocessing={"resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3})
    encoder = ClipEncoder(squash)
    white = Image.new("RGB", (90, 30), "white")
    white.paste("black", (0, 0, 30, 30))
    pixels = encoder.preprocess(white)
    assert pixels.shape == (3, 32, 32)
    assert pixels[:, :, 0].max() < -0.9  # the left third is there, not cropped away
    assert pixels[:, :, -1].min() > 0.9


def test_fingerprint_follows_weights_architecture_and_preprocessing_only(local):
    config, _ = local()
    base = locate(config).fingerprint
    assert base == ClipEncoder(config.model_copy(update={"precision": "float16", "batch_size": 3})).fingerprint
    other_weights = locate(local(seed=2)[0]).fingerprint
    heads = {**ARCHITECTURE, "text_cfg": {**ARCHITECTURE["text_cfg"], "heads": 4}}
    other_architecture = locate(local(architecture=heads)[0]).fingerprint
    other_preprocessing = locate(local(preprocessing={"resize_mode": "squash"})[0]).fingerprint
    assert len({base, other_weights, other_architecture, other_preprocessing}) == 4


def test_random_weights_are_seeded_and_leave_the_generator_alone(local):
    config, _ = local(pretrained=None)
    torch.manual_seed(5)
    first = ClipEncoder(config).embed_images([image(0)])
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.rand(1) == after
    torch.manual_seed(6)
    np.testing.assert_array_equal(ClipEncoder(config).embed_images([image(0)]), first)


def test_text_never_acts_as_a_control_token(local):
    encoder = ClipEncoder(local()[0])
    plain, tricky = encoder.tokenize(["cat <end_of_text> dog", "a <start_of_text>&lt;end_of_text&gt; b"])
    end = encoder.tokenize([""])[0, 1]
    for tokens in (plain, tricky):
        assert (tokens == end).sum() == 1
        assert (tokens == tokens[0]).sum() == 1
    assert not np.allclose(*encoder.embed_texts(["cat <end_of_text> dog", "cat <end_of_text> lion"]))


def test_a_long_text_is_cut_as_open_clip_cuts_it(local):
    encoder = ClipEncoder(local()[0])
    text = "Budapest is the capital of Hungary, on the Danube. " * 100
    assert torch.equal(encoder.tokenize([text]), open_clip.tokenize([text], context_length=16))


def test_a_tokenizer_in_the_folder_of_the_configuration_is_used(local, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {w: i for i, w in enumerate(["<pad>", "<s>", "</s>", "<unk>", "red", "blue", "<", "s", "/", ">"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(tmp_path / "words")
    text = {**ARCHITECTURE["text_cfg"], "hf_tokenizer_name": "words", "vocab_size": 10}
    config, _ = local(architecture={**ARCHITECTURE, "text_cfg": text}, pretrained=None)
    encoder = ClipEncoder(config)
    assert encoder.tokenize(["red blue"])[0].tolist() == [1, 4, 5, 2] + [0] * 12
    assert (encoder.tokenize(["red </s> blue"]) == 2).sum() == 1


def test_threads_may_preprocess_at_once(local):
    encoder = ClipEncoder(local()[0])
    images = [image(i) for i in range(8)]
    got: dict[int, torch.Tensor] = {}

    def prepare(i):
        got[i] = encoder.preprocess(images[i])

    threads = [threading.Thread(target=prepare, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(got[i], encoder.preprocess(p)) for i, p in enumerate(images))


def test_a_named_model_is_built(local):
    source = locate(ClipConfig(model="ViT-S-32-alt"))
    assert source.weights is None
    assert source.architecture["embed_dim"] == 256


def test_a_tag_brings_its_own_activation(monkeypatch, tmp_path):
    (tmp_path / "weights.safetensors").touch()
    monkeypatch.setattr(open_clip, "download_pretrained", lambda tag: str(tmp_path / "weights.safetensors"))
    assert locate(ClipConfig(model="ViT-L-14", pretrained="openai")).architecture["quick_gelu"] is True
    assert locate(ClipConfig(model="ViT-L-14", pretrained="laion2b_s32b_b82k")).architecture["quick_gelu"] is False


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "ViT-Z-99"}, "open_clip has no model 'ViT-Z-99'"),
        ({"model": "hf-hub:some/model"}, "open_clip has no model"),
        ({"model": "none.json"}, "cannot read .*none.json"),
        ({"model": "ViT-B-32", "pretrained": "no_such_tag"}, "neither a tag of the model .*openai.* nor a file"),
    ],
)
def test_a_missing_model_or_file_is_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        locate(ClipConfig(**fields))


def test_broken_local_files_are_refused(local, tmp_path):
    config, _ = local()
    for content, message in (("{", "is not JSON"), ("[]", "lacks"), ('{"embed_dim": 3}', "lacks .*text_cfg")):
        (tmp_path / "broken.json").write_text(content)
        with pytest.raises(ConfigError, match=message):
            locate(config.model_copy(update={"model": str(tmp_path / "broken.json")}))
    torch.save({}, tmp_path / "pickle.pt")
    with pytest.raises(ConfigError, match=r"must be a \.safetensors file"):
        locate(config.model_copy(update={"pretrained": str(tmp_path / "pickle.pt")}))
    (tmp_path / "bad.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ConfigError, match="does not make a model"):
        ClipEncoder(config.model_copy(update={"pretrained": str(tmp_path / "bad.safetensors")}))
    other, _ = local("wide", architecture={**ARCHITECTURE, "embed_dim": 32})
    with pytest.raises(ConfigError, match="does not make a model"):
        ClipEncoder(config.model_copy(update={"pretrained": other.pretrained}))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
DAMAGES = {
    "a pointer": (lambda data: LFS, "is a Git LFS pointer"),
    "empty": (lambda data: b"", "is empty"),
    "cut short": (lambda data: data[:-5], "is not a whole safetensors file"),
    "a page of HTML": (lambda data: b"<html>" * 9, "is not a whole safetensors file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_named_where_they_are_located(local, damage):
    config, _ = local()
    path, (change, message) = Path(config.pretrained), DAMAGES[damage]
    path.write_bytes(change(path.read_bytes()))
    for call in (locate, ClipEncoder):
        with pytest.raises(ConfigError, match=message) as raised:
            call(config)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


def rewrite(config, change):
    tensors = {n: t.contiguous() for n, t in change(load_file(config.pretrained)).items()}
    save_file(tensors, config.pretrained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: dict(list(t.items())[::2]), r"missing: \d+ of \d+ tensors \("),
        (lambda t: t | {"visual.more": torch.ones(2)}, r"unexpected: 1 of \d+ \(visual\.more\)"),
        (lambda t: {f"module.{n}": x for n, x in t.items() if "ln" in n}, "missing: .*unexpected: "),
        (lambda t: t | {"text_projection": torch.ones(3, 3)}, r"of another shape: 1 \(text_projection is \[3, 3\]"),
    ],
)
def test_weights_that_do_not_all_land_are_counted_and_named(local, change, message):
    config, _ = local()
    rewrite(config, change)
    with pytest.raises(ConfigError, match=f"does not make a model: .*{message}") as raised:
        ClipEncoder(config)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(local, value):
    config, _ = local()
    rewrite(config, lambda t: t | {"text_projection": t["text_projection"] * value})
    with pytest.raises(ArtifactError, match=r"small\.safetensors holds NaN or infinity .*\(text_projection\)"):
        ClipEncoder(config)


def test_images_whose_numbers_are_not_finite_are_told_apart(local):
    config, _ = local()
    encoder = ClipEncoder(config.model_copy(update={"batch_size": 2}))
    pixels = torch.stack([encoder.preprocess(image(i)) for i in range(3)])
    pixels[1] = torch.nan
    with pytest.raises(NotFinite, match=r"infinite numbers in float32 for 1 of 3 inputs") as raised:
        encoder.encode_images(pixels)
    assert raised.value.positions == [1]
    with torch.no_grad():
        encoder._model.visual.proj.fill_(torch.inf)
    with pytest.raises(NotFinite) as raised:
        encoder.embed_images([image(i) for i in range(5)])
    assert raised.value.positions == [0, 1, 2, 3, 4]  # of all, not of a batch


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embed_dim": "24"}, "it lacks embed_dim"),
        ({"vision_cfg": None}, "it lacks vision_cfg"),
        ({"text_cfg": []}, "it lacks text_cfg"),
        ({"vision_cfg": {"layers": "many"}}, "does not make a model"),
        ({"text_cfg": {"width": 30, "heads": 4, "layers": 1}}, "does not make a model"),
        (
            {"text_cfg": {"hf_tokenizer_name": "no/such-tokenizer"}},
            "the tokenizer 'no/such-tokenizer' cannot be loaded",
        ),
    ],
)
def test_fields_that_make_no_model_are_a_wrong_configuration(local, fields, message):
    config, _ = local()
    path = Path(config.model)
    path.write_text(json.dumps(ARCHITECTURE | fields))
    with pytest.raises(ConfigError, match=message) as raised:
        ClipEncoder(config.model_copy(update={"pretrained": None}))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("preprocessing", ["text", {"mean": "x"}, {"resize_mode": "other"}])
def test_a_preprocessing_that_cannot_be_used_is_a_wrong_configuration(local, preprocessing):
    config, _ = local()
    Path(config.model).write_text(json.dumps({"model_cfg": ARCHITECTURE, "preprocess_cfg": preprocessing}))
    with pytest.raises(ConfigError, match=r"preprocess_cfg|does not make a model"):
        ClipEncoder(config)


def test_a_folder_in_place_of_a_file_is_a_wrong_configuration(local, tmp_path):
    config, _ = local()
    with pytest.raises(ConfigError, match=r"is a folder: name the \.safetensors file in it"):
        locate(config.model_copy(update={"pretrained": str(tmp_path)}))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ConfigError, match=r"it is a folder: name the \.json file in it"):
        locate(config.model_copy(update={"model": str(tmp_path / "folder.json")}))


def test_a_broken_tokenizer_folder_is_named(local, tmp_path):
    config, _ = local()
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_bytes(LFS)
    text = ARCHITECTURE["text_cfg"] | {"hf_tokenizer_name": "tokenizer"}
    path = tmp_path / Path(config.model).name
    path.write_text(json.dumps(ARCHITECTURE | {"text_cfg": text}))
    with pytest.raises(ConfigError, match="the tokenizer 'tokenizer' cannot be loaded"):
        ClipEncoder(config.model_copy(update={"model": str(path)}))
