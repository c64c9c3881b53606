"""The sections `backbone`, `adapter`, `memory` and `reasoner`: the model that encodes and answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from comem_ray.config.base import Precision, Section, WorkersConfig


class PixelLimitsConfig(Section):
    """Limits on the pixels an image is resized to before the vision tower; 28*28 pixels make one token."""

    min: int | None = Field(None, ge=1, description="pixels; null sets none")
    max: int | None = Field(None, ge=1, description="pixels; null sets none")

    @model_validator(mode="after")
    def _ordered(self) -> PixelLimitsConfig:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min}) must not exceed max ({self.max})")
        return self


class BackboneConfig(Section):
    """The VLM: Qwen2.5-VL or Qwen2-VL of any size."""

    model: str = Field(description="hub name or folder of the checkpoint")
    precision: Precision | Literal["auto"] = Field(
        "bfloat16", description="dtype of the weights; 'auto': float32 on a CPU that has no bfloat16 instructions"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    item_pixels: PixelLimitsConfig = PixelLimitsConfig(min=16 * 28 * 28, max=64 * 28 * 28)
    question_pixels: PixelLimitsConfig = PixelLimitsConfig(min=256 * 28 * 28, max=1280 * 28 * 28)


class AdapterConfig(Section):
    """The trained part: LoRA on the backbone and the Q-Former. Sizes count only where `path` is null."""

    path: str | None = Field(None, description="folder of a trained adapter; null makes one of random weights")
    seed: int = Field(0, ge=0, description="seed of the random weights where path is null")
    lora_rank: int = Field(16, ge=1)
    lora_alpha: float = Field(32, gt=0)
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    queries: int = Field(8, ge=1, description="memory vectors an item (Q)")
    qformer_layers: int = Field(8, ge=1, description="passes through the one shared layer")
    qformer_heads: int = Field(16, ge=1)
    qformer_head_width: int | None = Field(None, ge=1, description="null: width of the backbone / heads (224 at 7B)")


class MemoryConfig(Section):
    """Precomputation of memory."""

    languages: list[str] | None = Field(
        None, description="items of these languages are encoded ahead of time, others when first asked for; null: all"
    )
    batch_tokens: int = Field(4_096, ge=1, description="tokens a forward pass, padding included; more needs memory")
    workers: WorkersConfig = WorkersConfig()


class ReasonerConfig(Section):
    item_order: Literal["best_first", "best_last"] = Field("best_first", description="place of the best item in front")
    question_vision: Literal["base", "adapter"] = Field(
        "base", description="vision tower of the question's image; 'adapter' for the authors' checkpoints"
    )
    max_new_tokens: int = Field(64, ge=1, description="tokens of an answer")
    max_prompt_tokens: int = Field(32_768, ge=16, description="longest prompt, memory included, in tokens")
    temperature: float = Field(0, ge=0, description="0 is greedy; the paper's evaluation has 0.1")
    top_p: float = Field(1, gt=0, le=1, description="the paper's evaluation has 0.001")
    repetition_penalty: float = Field(1, gt=0, description="the paper's evaluation has 1.05")
