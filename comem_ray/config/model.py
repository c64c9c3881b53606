"""The sections `backbone`, `adapter`, `memory` and `reasoner`: the model that encodes and answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from comem_ray.config.base import Language, Precision, Section, WorkersConfig


class PixelLimitsConfig(Section):
    """Limits that an image is resized within before the vision tower.

    28*28 pixels make one token in Qwen2-VL and Qwen2.5-VL, 32*32 in Qwen3-VL. Backbones that cut images into tiles keep
    a limit as a number of tiles. LLaVA-1.5 knows one size: a limit that does not hold it is refused.
    """

    min: int | None = Field(None, ge=1, description="fewest pixels; null: the checkpoint's own limit")
    max: int | None = Field(
        None, ge=1, description="most pixels; more shows more detail and makes longer prompts; null: the checkpoint's"
    )

    @model_validator(mode="after")
    def _ordered(self) -> PixelLimitsConfig:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min}) must not exceed max ({self.max})")
        return self


class BackboneConfig(Section):
    """The VLM, of a family that docs/compatibility.md lists and of any size.

    It is both encoder and reasoner, and is never trained.
    """

    model: str = Field(description="folder of the checkpoint, or its name on the hub")
    precision: Precision | Literal["auto"] = Field(
        "bfloat16", description="dtype of the weights; 'auto' takes float32 on a CPU without bfloat16 instructions"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        "sdpa",
        description="attention implementation: 'sdpa' is fast everywhere, 'eager' can be faster for small models on a "
        "CPU, 'flash_attention_2' needs the package flash-attn and a GPU",
    )
    item_pixels: PixelLimitsConfig = Field(
        PixelLimitsConfig(min=16 * 28 * 28, max=64 * 28 * 28), description="size of an item's image"
    )
    question_pixels: PixelLimitsConfig = Field(
        PixelLimitsConfig(min=256 * 28 * 28, max=1280 * 28 * 28), description="size of a question's image"
    )


class AdapterConfig(Section):
    """The trained part: LoRA on the backbone, and the Q-Former. The sizes are used only if `path` is null."""

    path: str | None = Field(None, description="folder of a trained adapter; null makes one of random weights")
    seed: int = Field(0, ge=0, description="seed of the random weights, if path is null")
    lora_rank: int = Field(16, ge=1, description="rank of the LoRA matrices; more learns more and takes more memory")
    lora_alpha: float = Field(32, gt=0, description="scale of LoRA: its output is multiplied by lora_alpha / lora_rank")
    lora_dropout: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="share of LoRA's inputs set to 0 in training; more overfits less, learns slower",
    )
    queries: int = Field(
        8, ge=1, description="memory vectors per item (Q); more hold more and make longer prompts and a larger store"
    )
    qformer_layers: int = Field(
        8, ge=1, description="passes through the one shared layer; more compute, no more weights"
    )
    qformer_heads: int = Field(16, ge=1, description="attention heads of the Q-Former")
    qformer_head_width: int | None = Field(
        None, ge=1, description="width of one head; null: width of the backbone / heads (224 at 7B)"
    )


class MemoryConfig(Section):
    """Encoding of items ahead of time, into the memory store."""

    languages: list[Language] | None = Field(
        None, description="languages of the items encoded ahead of time; others are encoded on first use; null: all"
    )
    batch_tokens: int = Field(
        4_096, ge=1, description="tokens per forward pass, padding included; more is faster and needs more memory"
    )
    workers: WorkersConfig = Field(WorkersConfig(), description="actors that encode items, one backbone each")


class ReasonerConfig(Section):
    """How the backbone answers a question with the retrieved items."""

    item_order: Literal["best_first", "best_last"] = Field(
        "best_first", description="order of the items before the question; 'best_last' puts the best next to it"
    )
    question_vision: Literal["base", "adapter"] = Field(
        "base",
        description="vision tower for a question's image: 'base' without LoRA; 'adapter' with it, for the authors' "
        "checkpoints",
    )
    language_model: Literal["auto", "base", "adapter"] = Field(
        "auto",
        description="language model that answers: 'base' without LoRA; 'adapter' with that in the adapter's folder "
        "reasoner/, which an import makes where the authors' model_inf is not the base; 'auto': 'adapter' where it is",
    )
    max_new_tokens: int = Field(64, ge=1, description="longest answer in tokens; more allows reasoning and takes time")
    max_prompt_tokens: int = Field(
        32_768, ge=16, description="longest prompt in tokens, memory included; a longer one is refused"
    )
    temperature: float = Field(0, ge=0, description="0 is greedy; more varies the answers; the paper's evaluation: 0.1")
    top_p: float = Field(
        1, gt=0, le=1, description="share of probability that is sampled from, if temperature > 0; the paper: 0.001"
    )
    repetition_penalty: float = Field(
        1,
        gt=0,
        description="factor against tokens that the prompt or the answer holds already; 1 is none; the paper: 1.05",
    )
    batch_invariant: bool = Field(
        False,
        description="true decodes each question alone, so that an answer never depends on its batch; it costs the "
        "speed of batches",
    )
