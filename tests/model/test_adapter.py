"""Adapters are saved and loaded without loss; fingerprints tell encoders apart."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from support.tiny import FAMILIES, image
from torch import nn
from transformers import AutoModelForImageTextToText

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ConfigError
from comem_ray.model.adapter import encoder_fingerprint, reasoner_identity, reasoner_lora, save_adapter
from comem_ray.model.backbone import load_backbone
from comem_ray.model.checkpoint import checkpoint_fingerprint
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.random_backbone import write_random_backbone

ITEM = ("Title: text", image(3))


def saved_adapter(family, make_config, backbones, tmp_path_factory):
    config = make_config(family)
    encoder = MemoryEncoder(config)
    torch.manual_seed(2)
    for name, parameter in encoder.backbone.model.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(folder, encoder.adapter, checkpoint_fingerprint(backbones[family]))
    return folder, encoder.encode([ITEM])


@pytest.fixture(scope="module")
def saved(make_config, backbones, tmp_path_factory):
    """A saved adapter whose weights are not the initial ones, and a memory of the encoder it was saved from."""
    return saved_adapter("qwen2_5_vl", make_config, backbones, tmp_path_factory)


@pytest.fixture(scope="module", params=FAMILIES)
def saved_by_family(request, make_config, backbones, tmp_path_factory):
    """The family, and a saved adapter and a memory of it."""
    return request.param, *saved_adapter(request.param, make_config, backbones, tmp_path_factory)


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the saved adapter, to be damaged."""
    return shutil.copytree(saved[0], tmp_path / "adapter")


def rewrite(path, change):
    """Replaces the tensors of a file by those that `change` makes of them."""
    save_file({n: t.contiguous() for n, t in change(load_file(path)).items()}, path)


def set_fields(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


LORA, LORA_CONFIG = "lora/adapter_model.safetensors", "lora/adapter_config.json"
NAMINGS = {
    "before transformers 4.52": lambda n: n.replace("model.model.language_model.", "model.model.").replace(
        "model.model.visual.", "model.visual."
    ),
    "with the adapter's name": lambda n: n.replace(".weight", ".default.weight"),
    "without PEFT's prefix": lambda n: n.removeprefix("base_model.model."),
    "within DistributedDataParallel": lambda n: f"module.{n}",
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_known_names_of_the_lora_load_exactly(saved_by_family, make_config, tmp_path, naming):
    family, folder, memory = saved_by_family
    copy = shutil.copytree(folder, tmp_path / "adapter")
    names = list(load_file(copy / LORA))
    rewrite(copy / LORA, lambda tensors: {NAMINGS[naming](n): t for n, t in tensors.items()})
    assert set(load_file(copy / LORA)) != set(names)
    if naming == "before transformers 4.52":  # target modules as suffixes, which PEFT writes most often
        set_fields(copy / LORA_CONFIG, target_modules=sorted({n.split(".lora_")[0].rsplit(".", 1)[1] for n in names}))
    assert torch.equal(MemoryEncoder(make_config(family, adapter={"path": str(copy)})).encode([ITEM]), memory)


def test_a_pattern_of_old_module_paths_selects_the_same_modules(saved, copy, make_config):
    rewrite(copy / LORA, lambda tensors: {NAMINGS["before transformers 4.52"](n): t for n, t in tensors.items()})
    pattern = r"(model\.layers\.\d+|visual\.blocks\.\d+|visual\.merger)\..*(proj|qkv|fc\d|mlp\.[02])"
    set_fields(copy / LORA_CONFIG, target_modules=pattern)
    assert torch.equal(MemoryEncoder(make_config(adapter={"path": str(copy)})).encode([ITEM]), saved[1])


def half(tensors):
    return dict(list(tensors.items())[::2])


def without_vision(tensors):
    return {n: t for n, t in tensors.items() if "visual" not in n}


def with_nan(tensors):
    name = next(iter(tensors))
    tensors[name].view(-1)[3] = float("nan")
    return tensors


def with_dora(tensors):
    names = [n for n in tensors if "lora_A" in n]
    return tensors | {n.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(3) for n in names}


DAMAGED_TENSORS = {
    "half of them": (LORA, half, r"missing: \d+ of \d+ tensors \(model\."),
    "none of the vision tower": (LORA, without_vision, r"missing: \d+ of \d+ tensors \(model\.visual"),
    "unknown names": (LORA, lambda t: {f"encoder.{n}": x for n, x in t.items()}, r"unexpected: \d+ of \d+ \(encoder"),
    "DoRA's vectors": (
        LORA,
        lambda t: (
            t
            | {n.replace("lora_A.weight", "lora_magnitude_vector"): x[0].clone() for n, x in t.items() if "lora_A" in n}
        ),
        r"unexpected: \d+ of \d+ \(.*lora_magnitude_vector",
    ),
    "lm_head too": (LORA, lambda t: t | {"base_model.model.lm_head.lora_A.weight": torch.ones(2)}, "lm_head"),
    "the patch embedding too": (
        LORA,
        lambda t: t | {"base_model.model.model.visual.patch_embed.proj.lora_A.weight": torch.ones(2)},
        "patch_embed",
    ),
    "two names of one matrix": (
        LORA,
        lambda t: t | {NAMINGS["before transformers 4.52"](n): x.clone() for n, x in t.items()},
        "twice, under different names",
    ),
    "another rank": (LORA, lambda t: {n: x[:4] if "lora_A" in n else x[:, :4] for n, x in t.items()}, "another shape"),
    "a NaN in the LoRA": (LORA, with_nan, r"adapter_model.safetensors holds NaN or infinity .* \(model\."),
    "infinity in the LoRA": (LORA, lambda t: {n: x / 0 for n, x in t.items()}, r"NaN or infinity .* and \d+ more"),
    "Q-Former without keys": ("qformer.safetensors", half, r"qformer.safetensors does not fit: missing: \d+ of \d+"),
    "Q-Former with more": ("qformer.safetensors", lambda t: t | {"layers.0.x": torch.ones(2)}, r"unexpected: 1 of \d+"),
    "Q-Former of another width": (
        "qformer.safetensors",
        lambda t: {n: x[..., :32] for n, x in t.items()},
        "another shape",
    ),
    "a NaN in the Q-Former": ("qformer.safetensors", with_nan, r"qformer.safetensors holds NaN or infinity"),
}


@pytest.mark.parametrize("damage", DAMAGED_TENSORS)
def test_tensors_that_do_not_all_land_are_refused(copy, make_config, damage):
    name, change, message = DAMAGED_TENSORS[damage]
    rewrite(copy / name, change)
    with pytest.raises(ArtifactError, match=message) as raised:
        MemoryEncoder(make_config(adapter={"path": str(copy)}))
    assert str(copy) in str(raised.value)
    assert "\n" not in str(raised.value)


FIELDS = {
    "DoRA": ({"use_dora": True}, "use_dora is True"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "modules_to_save is"),
    "bias": ({"bias": "all"}, "bias is 'all'"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    "ranks of single modules": ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is"),
    "a field of another time": ({"use_something_new": True}, "use_something_new is True"),
    "another method": ({"peft_type": "IA3"}, "is of type 'IA3'"),
    "no rank": ({"r": None}, "r is None, want a number above 0"),
    "rank 0": ({"r": 0}, "r is 0"),
    "another rank": ({"r": 8}, "adapter_config.json says .*adapter.json says"),
    "another alpha": ({"lora_alpha": 64}, "the LoRA is of another training"),
    "a text for alpha": ({"lora_alpha": "32"}, "lora_alpha is '32'"),
    "another scale": ({"use_rslora": True}, "the LoRA is of another training"),
    "no module": ({"target_modules": ["nothing"]}, "match no Linear"),
    "a broken pattern": ({"target_modules": "("}, "target_modules cannot be used"),
    "fewer modules": ({"target_modules": ["q_proj"]}, r"unexpected: \d+ of \d+"),
    "none": ({"target_modules": None}, "target_modules"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_more_than_lora_on_the_linears_is_refused(copy, make_config, case):
    fields, message = FIELDS[case]
    set_fields(copy / LORA_CONFIG, **fields)
    with pytest.raises(ArtifactError, match=message) as raised:
        MemoryEncoder(make_config(adapter={"path": str(copy)}))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("facts", [{"lora": None}, {}])
def test_a_rank_that_the_matrices_lack_is_refused_in_adapters_of_version_0_1_too(copy, make_config, facts):
    stored = json.loads((copy / "adapter.json").read_text())
    del stored["lora"]
    (copy / "adapter.json").write_text(json.dumps(stored | facts))
    MemoryEncoder(make_config(adapter={"path": str(copy)}))
    set_fields(copy / LORA_CONFIG, r=8)
    with pytest.raises(ArtifactError, match="of another shape"):
        MemoryEncoder(make_config(adapter={"path": str(copy)}))


def test_rank_stabilised_lora_has_its_own_scale(copy, make_config, saved):
    """`use_rslora` of PEFT: alpha / sqrt(rank). With alpha smaller by sqrt(rank), it is the same adapter."""
    stored = json.loads((copy / "adapter.json").read_text())
    stored["lora"] |= {"use_rslora": True, "alpha": 8.0}  # 8 / sqrt(16) = 32 / 16
    (copy / "adapter.json").write_text(json.dumps(stored))
    set_fields(copy / LORA_CONFIG, use_rslora=True, lora_alpha=8.0)
    assert torch.equal(MemoryEncoder(make_config(adapter={"path": str(copy)})).encode([ITEM]), saved[1])


def test_an_adapter_of_plain_peft_loads_as_plain_peft_loads_it(copy, make_config, backbones):
    """Trained elsewhere, on the language model alone, saved by PEFT: the same hidden states as in PEFT."""
    model = AutoModelForImageTextToText.from_pretrained(backbones["qwen2_5_vl"])
    config = LoraConfig(r=4, lora_alpha=16, target_modules=r"model\.language_model\..*(q_proj|down_proj)")
    lora = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(parameter, std=0.1)
    shutil.rmtree(copy / "lora")
    lora.save_pretrained(copy / "lora")
    stored = json.loads((copy / "adapter.json").read_text())
    del stored["lora"]
    (copy / "adapter.json").write_text(json.dumps(stored))
    encoder = MemoryEncoder(make_config(adapter={"path": str(copy)}))
    encoder.adapter.lora.base_model.enable_adapter_layers()
    ids = torch.arange(9)[None]
    with torch.no_grad():
        assert torch.equal(encoder.backbone.model(input_ids=ids).logits, lora(input_ids=ids).logits)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
BROKEN_FILES = {
    "adapter.json is cut": ("adapter.json", '{"backbone": "ab', "adapter.json is not JSON"),
    "adapter.json is a list": ("adapter.json", "[]", "adapter.json holds a list"),
    "adapter.json names no backbone": ("adapter.json", "{}", "names no backbone"),
    "adapter_config.json is a pointer": (LORA_CONFIG, LFS, "adapter_config.json is a Git LFS pointer"),
    "adapter_config.json is cut": (LORA_CONFIG, '{"r": 16', "adapter_config.json is not JSON"),
    "the LoRA is a pointer": (LORA, LFS, "adapter_model.safetensors is a Git LFS pointer"),
    "the LoRA is empty": (LORA, "", "adapter_model.safetensors is empty"),
    "the Q-Former is a pointer": ("qformer.safetensors", LFS, "qformer.safetensors is a Git LFS pointer"),
    "the Q-Former is a page": ("qformer.safetensors", "<html></html>", "is not a whole safetensors file"),
}


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_broken_files_are_named_in_one_sentence(copy, make_config, case):
    name, text, message = BROKEN_FILES[case]
    (copy / name).write_text(text)
    config = make_config(adapter={"path": str(copy)})
    with pytest.raises(ArtifactError, match=message) as raised:
        MemoryEncoder(config)
    assert "\n" not in str(raised.value)


def test_a_damaged_adapter_is_named_as_damaged_before_fingerprints_are_compared(copy, make_config):
    path = copy / "qformer.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"qformer\.safetensors is not a whole safetensors file"):
        encoder_fingerprint(make_config(adapter={"path": str(copy)}))


@pytest.mark.parametrize(
    "sizes", [None, {}, {"queries": 8}, {"queries": "8", "layers": 3, "heads": 4, "head_width": 16}]
)
def test_sizes_of_the_qformer_must_be_there(copy, make_config, sizes):
    set_fields(copy / "adapter.json", qformer=sizes)
    with pytest.raises(ArtifactError, match="the sizes of the Q-Former are"):
        MemoryEncoder(make_config(adapter={"path": str(copy)}))


def test_other_sizes_of_the_qformer_do_not_fit(copy, make_config):
    set_fields(copy / "adapter.json", qformer={"queries": 4, "layers": 3, "heads": 4, "head_width": 16})
    with pytest.raises(ArtifactError, match=r"another shape: 1 \(queries is \[8, 64\], want \[4, 64\]"):
        MemoryEncoder(make_config(adapter={"path": str(copy)}))


def test_a_file_in_place_of_the_folder_is_a_wrong_configuration(copy, make_config):
    with pytest.raises(ConfigError, match="is a file: name the folder of the adapter"):
        MemoryEncoder(make_config(adapter={"path": str(copy / "adapter.json")}))


def test_a_refused_lora_leaves_the_backbone_as_it_was(copy, make_config):
    rewrite(copy / LORA, half)
    config = make_config(adapter={"path": str(copy)})
    backbone = load_backbone(config.backbone)
    with pytest.raises(ArtifactError):
        MemoryEncoder(config, backbone=backbone)
    assert not [name for name, _ in backbone.model.named_parameters() if "lora" in name]


def test_save_load_gives_the_same_memory(saved, make_config):
    folder, memory = saved
    config = make_config(adapter={"path": str(folder), "qformer_layers": 1})  # sizes come from the folder
    assert torch.equal(MemoryEncoder(config).encode([ITEM]), memory)


def test_lora_folder_loads_by_plain_peft(saved, backbones):
    model = AutoModelForImageTextToText.from_pretrained(backbones["qwen2_5_vl"])
    before = model(input_ids=torch.arange(9)[None]).logits
    lora = PeftModel.from_pretrained(model, saved[0] / "lora")
    assert not torch.allclose(lora(input_ids=torch.arange(9)[None]).logits, before)


def test_an_adapter_of_another_backbone_is_refused(saved, make_config, tmp_path):
    write_random_backbone(tmp_path, seed=7)
    config = make_config(backbone={"model": str(tmp_path)}, adapter={"path": str(saved[0])})
    with pytest.raises(ArtifactError, match="was trained on backbone"):
        MemoryEncoder(config)


def test_missing_files_are_named(make_config, tmp_path):
    (tmp_path / "adapter.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"qformer\.safetensors, lora/adapter_config\.json"):
        MemoryEncoder(make_config(adapter={"path": str(tmp_path)}))
    with pytest.raises(ConfigError, match="is not a folder"):
        MemoryEncoder(make_config(backbone={"model": "no/such-model"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ConfigError, match="of type 'llama'"):
        MemoryEncoder(make_config(backbone={"model": str(tmp_path)}))


def test_fingerprint_follows_all_that_a_memory_depends_on(make_config, saved, tmp_path):
    write_random_backbone(tmp_path, seed=7)
    configs = [
        make_config(),
        make_config(adapter={"seed": 1}),
        make_config(adapter={"path": str(saved[0])}),
        make_config(backbone={"model": str(tmp_path)}),
        make_config(backbone={"item_pixels": {"min": 784, "max": 1568}}),
    ]
    assert len({encoder_fingerprint(c) for c in configs}) == len(configs)
    same = make_config(backbone={"precision": "bfloat16", "question_pixels": {}}, reasoner={"item_order": "best_last"})
    assert encoder_fingerprint(same) == encoder_fingerprint(configs[0])


def test_the_second_lora_is_part_of_the_reasoner_and_not_of_the_memory(saved, copy, make_config):
    config, plain = make_config(adapter={"path": str(copy)}), make_config()
    assert reasoner_lora(config) is None
    without = reasoner_identity(config)
    assert without == reasoner_identity(plain)
    assert "language_model" not in without  # as before version 0.5: finished work stays valid
    shutil.copytree(copy / "lora", copy / "reasoner")
    assert encoder_fingerprint(config) == encoder_fingerprint(make_config(adapter={"path": str(saved[0])}))
    assert reasoner_lora(config) == copy / "reasoner"
    assert set(reasoner_identity(config)["language_model"]) == {"adapter_config.json", "adapter_model.safetensors"}
    off = make_config(adapter={"path": str(copy)}, reasoner={"language_model": "base"})
    assert reasoner_lora(off) is None
    assert reasoner_identity(off) == without
    for path in (None, str(saved[0])):
        with pytest.raises(ConfigError, match=r"language_model is 'adapter', but .* has no reasoner/"):
            reasoner_lora(make_config(adapter={"path": path}, reasoner={"language_model": "adapter"}))


def test_the_layout_of_the_hub_is_an_adapter_folder(saved, copy, make_config):
    for path in (copy / "lora").iterdir():
        path.rename(copy / path.name)
    (copy / "lora").rmdir()
    config = make_config(adapter={"path": str(copy)})
    assert torch.equal(MemoryEncoder(config).encode([ITEM]), saved[1])
    assert encoder_fingerprint(config) == encoder_fingerprint(make_config(adapter={"path": str(saved[0])}))
