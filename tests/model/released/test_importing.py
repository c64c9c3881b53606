"""An imported adapter has the memory and the answers of the release it was made from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.authors_qformer import authors_memory
from support.release import HEADS, PASSES, base_weights, imported, merged, name_of_4_49, write_release, write_shards
from support.tiny import FAMILIES, image

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ConfigError
from comem_ray.model.backbone import load_backbone
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.prompt import Prompt
from comem_ray.model.random_backbone import write_random_backbone
from comem_ray.model.reasoner import Reasoner
from comem_ray.model.released.importing import import_checkpoint
from comem_ray.prompts import item_turn

ITEMS = [("Title: text", image(1)), ("Another: a longer text than that one", image(2, 84, 56)), ("", image(3))]
QUESTION = "What is in the image?"


def stock_folder(folder: Path, base: Path, weights: dict[str, torch.Tensor]) -> Path:
    """An ordinary checkpoint of these weights, with the base's configuration, tokenizer and image processor."""
    shutil.copytree(base, folder)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    save_file(
        {name: t.float().contiguous() for name, t in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def stock(config, folder: Path):
    return load_backbone(config.backbone.model_copy(update={"model": str(folder)}))


@torch.no_grad()
def released_memory(config, folder: Path, tensors) -> torch.Tensor:
    """Memory (items, Q, D) by the stock model of the merged encoder and the authors' formula."""
    backbone, memory = stock(config, folder), []
    for text, picture in ITEMS:
        batch = backbone.sequencer.batch([backbone.sequencer.sequence(item_turn(text, picture))], padding="right")
        hidden = backbone.hidden_states(batch, backbone.embed(batch, backbone.image_features(batch)))[0]
        memory.append(authors_memory(tensors, hidden, PASSES, HEADS))
    return torch.stack(memory)


def encoder_weights(tensors) -> dict[str, torch.Tensor]:
    return {n: t for n, t in tensors.items() if not n.startswith(("model_inf.", "knowledge_processor."))}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_memory_is_that_of_the_release(family, dtype, backbones, tmp_path):
    tensors = write_release(tmp_path / "release", backbones[family], dtype)
    report, config = imported(tmp_path / "release", backbones[family], tmp_path / "out")
    assert (report.encoder.rank, report.encoder.rank_found, report.model_inf) == (16, 16, "equal to the base")
    original = released_memory(
        config, stock_folder(tmp_path / "stock", backbones[family], encoder_weights(tensors)), tensors
    )
    with torch.no_grad():
        encoder = MemoryEncoder(config)
        ours = torch.cat([encoder.forward([encoder.sequence(*item)]) for item in ITEMS])
    if dtype == torch.float32:
        torch.testing.assert_close(ours, original, rtol=1e-4, atol=1e-5)
        return
    # Stored as bfloat16, the release is itself that far from the model that was trained.
    exact = {name_of_4_49(n): t for n, t in merged(base_weights(backbones[family]), 1, torch.float32).items()}
    trained = released_memory(config, stock_folder(tmp_path / "exact", backbones[family], exact), tensors)
    assert (ours - original).norm() < 1.2 * (trained - original).norm()
    assert (ours - trained).norm() < (trained - original).norm()
    assert (trained - original).norm() < 0.05 * original.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_model_that_differs_from_the_base_answers(family, backbones, tmp_path):
    """The reference: model_inf as stock language model, the question's image through the encoder's vision tower."""
    base = backbones[family]
    tensors = write_release(tmp_path / "release", base, torch.float32, model_inf="different")
    report, config = imported(tmp_path / "release", base, tmp_path / "out")
    assert report.model_inf == "different from the base"
    assert report.reasoner is not None
    assert report.reasoner.rank_found == 16
    assert all(linear.changed == ("language_model" in name) for name, linear in report.reasoner.linears.items())
    second = {n.removeprefix("model_inf."): t for n, t in tensors.items() if n.startswith("model_inf.")}
    second |= {n: t for n, t in encoder_weights(tensors).items() if n.startswith("visual.")}
    plain = {"question_vision": "base", "language_model": "base"}
    reference = Reasoner(
        config.model_copy(update={"reasoner": config.reasoner.model_copy(update=plain)}),
        backbone=stock(config, stock_folder(tmp_path / "stock", base, second)),
    )
    encoder = MemoryEncoder(config)
    ours = Reasoner(config, backbone=encoder.backbone, adapter=encoder.adapter)
    memory = encoder.encode(ITEMS)
    prompts = [
        Prompt(QUESTION, image(7), "memory", memory=memory),
        Prompt("And now?", None),
        Prompt(QUESTION, image(7), "rag", items=ITEMS[:2]),
    ]
    assert [c.text for c in ours.answer(prompts)] == [c.text for c in reference.answer(prompts)]
    with torch.no_grad():
        got, wanted = (
            r.backbone.hidden_states(*r.inputs(prompts, [r.sequence(p) for p in prompts])) for r in (ours, reference)
        )
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)
    assert torch.equal(encoder.encode(ITEMS), memory)  # the encoder has its own LoRA before and after
    alone = Reasoner(config)  # as in a replica of Serve, with a backbone of its own
    assert [c.text for c in alone.answer(prompts)] == [c.text for c in ours.answer(prompts)]


def test_the_second_model_can_be_left_out(backbones, tmp_path):
    base = backbones["qwen2_5_vl"]
    write_release(tmp_path / "release", base, torch.float32, model_inf="different")
    _, config = imported(tmp_path / "release", base, tmp_path / "out")
    base_answers = config.model_copy(update={"reasoner": config.reasoner.model_copy(update={"language_model": "base"})})
    prompt = Prompt(QUESTION, image(7))
    batches = []
    for settings in (config, base_answers):
        reasoner = Reasoner(settings)
        with torch.no_grad():
            batches.append(reasoner.backbone.hidden_states(*reasoner.inputs([prompt], [reasoner.sequence(prompt)])))
    assert not torch.allclose(*batches, atol=1e-2)


SPELLINGS = {
    "model_inf.model": lambda n: f"model_inf.{name_of_4_49(n)}",
    "today's names": lambda n: f"model_inf.{n}",
    "a language model alone": lambda n: f"model_inf.{n.removeprefix('model.language_model.')}",
    "behind model.": lambda n: f"model.model_inf.{name_of_4_49(n)}",
    "below a wrapper": lambda n: f"module.model_inf.{name_of_4_49(n)}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_the_second_model(spelling, backbones, tmp_path):
    base, rename = backbones["qwen2_vl"], SPELLINGS[spelling]
    tensors = write_release(tmp_path / "release", base, torch.float32, "different", rename_inf=rename)
    if spelling == "a language model alone":
        ours = {
            n: t for n, t in tensors.items() if not (n.startswith("model_inf.") and ("visual" in n or "lm_head" in n))
        }
        write_shards(tmp_path / "release", ours)
    report, _ = imported(tmp_path / "release", base, tmp_path / "out")
    assert report.reasoner is not None
    assert (len(report.reasoner.changed), report.reasoner.rank_found) == (21, 16)


def test_a_release_without_a_second_model_and_with_buffers(backbones, tmp_path):
    base = backbones["qwen2_vl"]
    tensors = write_release(tmp_path / "release", base, model_inf=None)
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "visual.rotary_pos_emb.inv_freq": torch.ones(4),
    }
    write_shards(tmp_path / "release", tensors | extra, shards=1)
    report, _ = imported(tmp_path / "release", base, tmp_path / "out")
    assert report.model_inf == "absent"
    assert not (tmp_path / "out" / "reasoner").exists()


def test_a_tied_lm_head(tmp_path):
    text = {
        "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 96, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    write_random_backbone(tmp_path / "base", text=text)
    config = tmp_path / "base" / "config.json"
    config.write_text(config.read_text().replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    weights = load_file(tmp_path / "base" / "model.safetensors")
    weights.pop("lm_head.weight", None)
    save_file(weights, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    tensors = write_release(tmp_path / "release", tmp_path / "base", torch.float32)
    assert "lm_head.weight" not in tensors
    imported(tmp_path / "release", tmp_path / "base", tmp_path / "out")
    write_shards(tmp_path / "release", tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    imported(tmp_path / "release", tmp_path / "base", tmp_path / "written-out")
    write_shards(tmp_path / "release", tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] + 1})
    with pytest.raises(ArtifactError, match=r"lm_head.weight of shape \[263, 64\], by up to 1"):
        imported(tmp_path / "release", tmp_path / "base", tmp_path / "other")


def test_precisions_may_be_mixed(backbones, tmp_path):
    base = backbones["qwen2_5_vl"]
    tensors = write_release(tmp_path / "release", base, torch.float32)
    mixed = {n: t.bfloat16() if i % 2 else t for i, (n, t) in enumerate(tensors.items())}
    mixed["lm_head.weight"] = mixed["lm_head.weight"].half()
    write_shards(tmp_path / "release", mixed)
    report, _ = imported(tmp_path / "release", base, tmp_path / "out")
    assert report.encoder.rank_found == 16
    assert {linear.dtype for linear in report.encoder.linears.values()} == {"float32", "bfloat16"}


def test_other_ranks_are_found(backbones, tmp_path):
    base = backbones["qwen2_5_vl"]
    write_release(tmp_path / "eight", base, rank=8)
    report, _ = imported(tmp_path / "eight", base, tmp_path / "out-8")
    assert (report.encoder.rank, report.encoder.rank_found) == (16, 8)
    write_release(tmp_path / "more", base, rank=24)
    with pytest.raises(
        ArtifactError, match=r"rank 2\d or more, LoRA by at most 16.*--rank"
    ):  # a width of 32 has no room
        imported(tmp_path / "more", base, tmp_path / "out-24")
    report, config = imported(tmp_path / "more", base, tmp_path / "out-24", rank=24)
    assert (report.encoder.rank, report.encoder.alpha, report.encoder.rank_found) == (24, 48, 24)
    MemoryEncoder(config)


def test_what_did_not_change_carries_no_lora(backbones, tmp_path):
    base = backbones["qwen2_5_vl"]
    tensors = write_release(tmp_path / "release", base, torch.float32)
    originals = {name_of_4_49(n): t for n, t in base_weights(base).items()}
    write_shards(tmp_path / "release", tensors | {n: t for n, t in originals.items() if n.startswith("visual.")})
    report, config = imported(tmp_path / "release", base, tmp_path / "language")
    assert all(linear.changed == ("language_model" in name) for name, linear in report.encoder.linears.items())
    assert not any("visual" in n for n in load_file(tmp_path / "language" / "lora" / "adapter_model.safetensors"))
    MemoryEncoder(config)
    write_shards(tmp_path / "release", tensors | originals)
    report, config = imported(tmp_path / "release", base, tmp_path / "nothing")
    assert (report.encoder.changed, report.encoder.rank_found) == ([], 0)
    MemoryEncoder(config)


def test_folders_that_are_none(release, backbones, tmp_path):
    base = backbones["qwen2_5_vl"]
    with pytest.raises(ConfigError, match="the release: "):
        imported(tmp_path / "no", base, tmp_path / "out")
    with pytest.raises(ConfigError, match="--base: "):
        imported(release[0], tmp_path / "no", tmp_path / "out")
    with pytest.raises(ArtifactError, match=r"holds no knowledge_processor.*not a backbone alone"):
        imported(base, base, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(ArtifactError, match="is there already and holds files"):
        imported(release[0], base, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    with pytest.raises(ConfigError, match="5 heads do not divide"):
        import_checkpoint(str(release[0]), str(base), tmp_path / "new", heads=5)


def test_an_adapter_without_a_second_lora_cannot_be_told_to_use_it(release, backbones, tmp_path):
    _, config = imported(release[0], backbones["qwen2_5_vl"], tmp_path / "out")
    settings = config.reasoner.model_copy(update={"language_model": "adapter"})
    with pytest.raises(ConfigError, match="has no reasoner/"):
        Reasoner(config.model_copy(update={"reasoner": settings}))
