"""One optimizer step of the adapter's training at the shapes of a released backbone, with random weights.

    python -m benchmarks.train_step --config configs/qwen2_5_vl_7b.yaml --steps 3
    python -m benchmarks.train_step --config configs/qwen2_5_vl_7b.yaml --backbone FOLDER    # any other shapes

Needs no checkpoint, data or Ray: the model is made on the device, and the samples have the typical size that the dry
run assumes (comem_ray.training.estimate.ASSUMED). All else is the trainer's own: objective, optimizer, micro-batches,
gradient checkpointing. Prints the median step, peak memory, MFU (useful FLOPs, without recomputation), and the hours
that the paper's 15.6 thousand samples would take.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from datetime import date
from typing import Any

import numpy as np
import peft
import torch
import transformers
from PIL import Image
from transformers import AutoModelForImageTextToText, Qwen2VLImageProcessor

from comem_ray.config import Config, load_config
from comem_ray.model.adapter import attach_adapter
from comem_ray.model.backbone import Backbone
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.patch_embedding import use_linear_patch_embedding
from comem_ray.model.random_tokenizers import byte_tokenizer
from comem_ray.model.reasoner import Reasoner
from comem_ray.model.sequences import Sequencer
from comem_ray.model.shapes import backbone_config
from comem_ray.model.window_attention import group_attention_windows
from comem_ray.training.data.samples import Sample
from comem_ray.training.estimate import ASSUMED, PAPER_SAMPLES, estimate
from comem_ray.training.loop import flops_per_token, known_peak, trainable_parameters
from comem_ray.training.objective import NOTHING, Objective
from comem_ray.training.optimizer import MasterAdamW


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--backbone", help="name or folder whose shapes are used; default: the configuration's")
    parser.add_argument("--steps", type=int, default=3, help="measured steps, after one that is not measured")
    args = parser.parse_args(arguments)
    overrides = [f"backbone.model={args.backbone}"] if args.backbone else []
    config = load_config(args.config, [*overrides, *args.overrides, "adapter.path=null"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(json.dumps(measure(config, device, args.steps), indent=1))


def measure(config: Config, device: str, steps: int) -> dict[str, Any]:
    """The figures of `steps` optimizer steps."""
    training = config.training
    assert training is not None
    expected = estimate(config)
    backbone = random_backbone(config, device)
    adapter = attach_adapter(config.adapter, backbone, trainable=True)
    if training.gradient_checkpointing:
        backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
    encoder, reasoner = MemoryEncoder(config, backbone=backbone, adapter=adapter), Reasoner(config, backbone=backbone)
    objective = Objective(encoder, reasoner, training.distillation)
    optimizer = MasterAdamW(trainable_parameters(adapter), training, steps + 1)
    samples = [typical_sample(i, training.items) for i in range(training.global_batch)]
    seconds, figures = [], NOTHING
    for step in range(steps + 1):
        start, figures = time.perf_counter(), NOTHING
        for first in range(0, len(samples), training.micro_batch):
            figures += objective.backward(samples[first : first + training.micro_batch], 1 / len(samples))
            optimizer.collect()
        optimizer.step(step)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[1:])
    tokens = figures.encoder_tokens + figures.reasoner_tokens
    peak = training.peak_tflops or known_peak(device)
    tflops = flops_per_token(backbone) * tokens / median / 1e12
    memory = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None
    return {
        "date": str(date.today()),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
        "backbone": config.backbone.model,
        "global_batch": training.global_batch,
        "micro_batch": training.micro_batch,
        "gradient_checkpointing": training.gradient_checkpointing,
        "tokens_per_sample": round(tokens / len(samples)),
        "step_s": round(median, 3),
        "samples_per_s": round(len(samples) / median, 3),
        "tflops": round(tflops, 2),
        "mfu": round(tflops / peak, 4) if peak else None,
        "peak_memory_gb": memory and round(memory, 2),
        "estimated_memory_gb": round(sum(expected.memory_gb.values()), 2),
        "loss": round(figures.loss / figures.samples, 3),
        "hours_of_the_paper": round(PAPER_SAMPLES / len(samples) * median / 3600, 3),
    }


def random_backbone(config: Config, device: str) -> Backbone:
    """The configured backbone's shapes, with random weights made on the device, and a tokenizer of bytes."""
    shapes, tokenizer = backbone_config(config.backbone.model), byte_tokenizer()
    for field, token in (
        ("image_token_id", "<|image_pad|>"),
        ("video_token_id", "<|video_pad|>"),
        ("vision_start_token_id", "<|vision_start|>"),
        ("vision_end_token_id", "<|vision_end|>"),
    ):
        setattr(shapes, field, tokenizer.convert_tokens_to_ids(token))
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(
            shapes, dtype=dtype, attn_implementation=config.backbone.attention
        )
    model.eval().requires_grad_(False)
    group_attention_windows(model)
    use_linear_patch_embedding(model)
    limits = {"item": config.backbone.item_pixels, "question": config.backbone.question_pixels}
    sequencer = Sequencer(tokenizer, Qwen2VLImageProcessor(), shapes, limits)
    return Backbone(model, sequencer, torch.device(device))


def typical_sample(number: int, items: int) -> Sample:
    """A sample of the size that estimates assume, with one token per byte."""
    rng = random.Random(number)

    def text(tokens: int) -> str:
        return "".join(rng.choice("abcdefghij ") for _ in range(tokens))

    def noise(width: int, height: int) -> Image.Image:
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    item_pairs = [(text(ASSUMED["text tokens per item"]), noise(512, 384)) for _ in range(items)]
    question, answer = text(ASSUMED["question tokens"]), text(ASSUMED["answer tokens"])
    return Sample(str(number), question, noise(640, 480), item_pairs, answer)


if __name__ == "__main__":
    main()
