"""The needs of a training run: trainable parameters by part, memory per worker, hours. Loads no weights.

Counts are exact: the model is built without weights. Memory and hours are estimates for a typical sample (ASSUMED).
FLOPs per weight and token: 2 for the forward pass, 2 for the gradient of the input, 2 for the gradient of the weight.

Letters: T tokens of a micro-batch, D width, F width of the MLP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from comem_ray.config import Config, PixelLimitsConfig
from comem_ray.home import resolve
from comem_ray.model.families import family_of
from comem_ray.model.lora import add_lora
from comem_ray.model.qformer import QFormer
from comem_ray.model.shapes import empty_backbone
from comem_ray.training.data.samples import steps_of, stored_samples

ASSUMED = {"text tokens per item": 300, "question tokens": 60, "answer tokens": 60, "image of a question": 640 * 480}
PAPER_SAMPLES = 15_600
MFU = (0.30, 0.45)
H100_TFLOPS = 989  # bf16, dense
PIXELS_PER_TOKEN = 28 * 28
CUDA_CONTEXT_GB = 1.0


@dataclass(frozen=True)
class Estimate:
    """Parameters, memory and time of a training run."""

    parts: dict[str, int]  # trainable parameters
    frozen: int  # frozen parameters of the backbone
    memory_gb: dict[str, float]  # of one worker, by part
    samples: int
    samples_known: bool  # False: training.data is empty, the paper's number is assumed
    steps: int
    tokens_per_sample: dict[str, int]  # of encoder and reasoner
    tflop_per_sample: float
    peak_tflops: float
    hours: dict[float, float]  # on one worker, by model FLOPs utilisation (MFU)

    def lines(self) -> list[str]:
        """The estimate as lines of text."""
        total, trained = sum(self.memory_gb.values()), sum(self.parts.values())
        share = 100 * trained / (trained + self.frozen)
        known = "" if self.samples_known else " (the paper's: training.data is empty)"
        return [
            "trainable parameters",
            *(f"  {name:28} {count:15,}" for name, count in self.parts.items()),
            f"  {'all':28} {trained:15,}  {share:.2f}% of {trained + self.frozen:,}",
            "memory per worker, GB (estimate)",
            *(f"  {name:28} {gb:15.2f}" for name, gb in self.memory_gb.items()),
            f"  {'all':28} {total:15.2f}",
            "work (estimate)",
            f"  {'samples':28} {self.samples:15,}{known}",
            f"  {'optimizer steps':28} {self.steps:15,}",
            *(f"  {'tokens per sample, ' + who:28} {count:15,}" for who, count in self.tokens_per_sample.items()),
            f"  {'TFLOP per sample':28} {self.tflop_per_sample:15.1f}",
            *(
                f"  {f'hours at MFU {mfu:.0%}':28} {hours:15.2f}  (one worker of {self.peak_tflops:g} TFLOP/s)"
                for mfu, hours in self.hours.items()
            ),
            "assumed: " + ", ".join(f"{k} {v:,}" for k, v in ASSUMED.items()),
        ]


def estimate(config: Config) -> Estimate:
    """The estimate of a run. Raises ConfigError if the shapes of the backbone cannot be loaded."""
    training = config.training
    assert training is not None
    model = empty_backbone(config.backbone.model)
    frozen = sum(p.numel() for p in model.parameters())
    parts = _trainable(config, model)
    stored = stored_samples(resolve(training.data))
    samples = stored or PAPER_SAMPLES
    steps = steps_of(samples, training.global_batch, training.epochs, training.max_steps)
    tokens = _tokens(config)
    flop = _flop(model, parts, tokens)
    peak = training.peak_tflops or H100_TFLOPS
    seconds = steps * training.global_batch * flop / (peak * 1e12)
    return Estimate(
        parts=parts,
        frozen=frozen,
        memory_gb=_memory(config, model, frozen, sum(parts.values()), tokens),
        samples=samples,
        samples_known=bool(stored),
        steps=steps,
        tokens_per_sample={"encoder": tokens["encoder"], "reasoner": tokens["reasoner"]},
        tflop_per_sample=flop / 1e12,
        peak_tflops=peak,
        hours={mfu: seconds / mfu / 3600 for mfu in MFU},
    )


def _trainable(config: Config, model: Any) -> dict[str, int]:
    sizes, width = config.adapter, model.config.text_config.hidden_size
    family = family_of(model.config)
    lora = {n: p.numel() for n, p in add_lora(model, sizes).named_parameters() if ".lora_" in n}
    language = sum(c for n, c in lora.items() if f".{family.language}.layers." in n)
    with torch.device("meta"):
        qformer: nn.Module = QFormer(
            width, sizes.queries, sizes.qformer_layers, sizes.qformer_heads, sizes.qformer_head_width
        )
    return {
        "LoRA, language model": language,
        "LoRA, vision tower": sum(lora.values()) - language,
        "Q-Former": sum(p.numel() for p in qformer.parameters()),
    }


def _tokens(config: Config) -> dict[str, int]:
    assert config.training is not None
    items = config.training.items
    image = _image_tokens(ASSUMED["image of a question"], config.backbone.question_pixels)
    item_image = _image_tokens(config.ingest.images.max_side**2, config.backbone.item_pixels)
    memory = items * config.adapter.queries
    return {
        "encoder": items * (item_image + ASSUMED["text tokens per item"]),
        "reasoner": memory + image + ASSUMED["question tokens"] + ASSUMED["answer tokens"],
        "encoder images": items * item_image,
        "reasoner images": image,
        "answer": ASSUMED["answer tokens"],
    }


def _image_tokens(pixels: int, limits: PixelLimitsConfig) -> int:
    if limits.min is not None:
        pixels = max(pixels, limits.min)
    if limits.max is not None:
        pixels = min(pixels, limits.max)
    return pixels // PIXELS_PER_TOKEN


def _flop(model: Any, parts: Mapping[str, int], tokens: Mapping[str, int]) -> float:
    """Useful FLOPs per sample, forward and backward, without recomputation and without attention scores."""
    family = family_of(model.config)
    language = _matrices(family.language_model(model).layers)
    # Four patches make one image token. No gradient goes through the reasoner's vision tower.
    vision = 4 * _matrices(family.vision_layers(model))
    encoder = tokens["encoder"] * (4 * language + 6 * parts["LoRA, language model"])
    encoder += tokens["encoder images"] * (4 * vision + 24 * parts["LoRA, vision tower"])
    reasoner = tokens["reasoner"] * 4 * language + tokens["reasoner images"] * 2 * vision
    width = model.config.text_config.hidden_size
    head = tokens["answer"] * 4 * width * model.config.text_config.vocab_size
    return float(encoder + reasoner + head)


def _matrices(layers: Any) -> int:
    return sum(p.numel() for n, p in layers.named_parameters() if p.ndim == 2 and ".lora_" not in n)


def _memory(config: Config, model: Any, frozen: int, trained: int, tokens: Mapping[str, int]) -> dict[str, float]:
    training, text = config.training, model.config.text_config
    assert training is not None
    size = 2 if config.backbone.precision in ("bfloat16", "float16") else 4
    batch = {name: training.micro_batch * count for name, count in tokens.items()}
    tokens_read, layers = batch["encoder"] + batch["reasoner"], text.num_hidden_layers
    # Values per token that a layer keeps for backward: inputs of norms, projections, MLP, and LoRA's dropout copies.
    per_token = 14 * text.hidden_size + 4 * text.intermediate_size
    checkpointed = tokens_read * text.hidden_size * layers + max(batch["encoder"], batch["reasoner"]) * per_token
    kept = checkpointed if training.gradient_checkpointing else tokens_read * per_token * layers
    parts = {
        "backbone": size * frozen,
        "adapter and its gradients": 2 * size * trained,
        "masters, moments, sums": 16 * trained,
        "activations": size * kept,
        "logits of the answers": 3 * 4 * batch["answer"] * text.vocab_size,
    }
    memory = {name: count / 1e9 for name, count in parts.items()}
    return {**memory, "CUDA context": CUDA_CONTEXT_GB} if training.workers.gpus else memory
