"""The section `synthesis` of the configuration: where training samples come from, and which answers are kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from comem_ray.config.base import ImageConfig, Language, Section, WorkersConfig
from comem_ray.config.evaluation import TaskName


class SynthesisSourceConfig(Section):
    """Questions with gold answers, in the files of a task."""

    task: TaskName = Field(description="a task whose answers a named rule scores one by one, such as infoseek or jsonl")
    path: str = Field(min_length=1, description="file of the questions")
    annotations: str | None = Field(
        None, description="okvqa: the file of the answers; encyclopedic_vqa: iNaturalist's JSON that names its images"
    )
    images: str | None = Field(
        None, description="a folder, a zip or a parquet file of the images; null: the folder of the questions"
    )
    split: str | None = Field(None, description="questions of this group alone, such as a split; null: all")
    language: str = Field("en", min_length=1, description="language of the questions, where a row names none")
    name: str | None = Field(None, min_length=1, description="name in the samples' provenance; null: the task")
    limit: int | None = Field(None, ge=1, description="rows read, the first; null: all")


class TranslationConfig(Section):
    """Translation of some kept samples, by an OpenAI-compatible endpoint."""

    endpoint: str = Field(pattern=r"^https?://", description="base URL; /chat/completions is appended")
    model: str = Field(min_length=1, description="name of the model at the endpoint")
    languages: list[Language] = Field(
        ["bg", "zh", "ar", "fil", "fr", "ja", "pt", "ru", "es"],
        min_length=1,
        description="BCP 47 codes of the languages to translate into",
    )
    samples_per_language: int = Field(200, ge=1, description="kept samples, drawn by seed for each language")
    key_variable: str | None = Field(None, description="environment variable that holds the key; null: no key is sent")
    timeout_s: float = Field(60, gt=0, description="seconds for an answer")
    retries: int = Field(4, ge=0, description="further tries after a time-out, a 429 or a 5xx")
    backoff_s: float = Field(1, ge=0, description="seconds before the first retry, doubled each time")
    parallel: int = Field(8, ge=1, description="requests under way at once, per worker")
    workers: WorkersConfig = Field(WorkersConfig(), description="actors that translate; each sends `parallel` requests")


class SynthesisConfig(Section):
    """Training samples: the backbone answers questions with retrieved items before it; right answers are kept."""

    sources: list[SynthesisSourceConfig] = Field(min_length=1, description="questions with gold answers")
    top_k: int = Field(3, ge=1, description="items of a sample, best first")
    answer_with_items: int | None = Field(None, ge=0, description="best items in the VLM's prompt; null: all top_k")
    min_score: float = Field(1.0, gt=0, le=1, description="an answer is kept from this score on; 1 is wholly right")
    answer_format: Literal["boxed", "plain"] = Field(
        "boxed", description="'boxed' asks to reason and to box the answer; 'plain' asks for nothing"
    )
    instruction: str | None = Field(None, description="sentence after the question; null: that of answer_format")
    max_new_tokens: int = Field(512, ge=1, description="tokens of an answer; one that is cut short is rejected")
    batch: int = Field(8, ge=1, description="questions decoded together; more needs memory")
    questions_per_unit: int = Field(256, ge=1, description="fewer lose less when killed")
    image_limits: ImageConfig = Field(
        ImageConfig(max_side=1024), description="limits of a question's image, which is stored with the sample"
    )
    translation: TranslationConfig | None = Field(None, description="translation of kept samples; null: none")
    workers: WorkersConfig = Field(WorkersConfig(), description="actors that answer; each holds a backbone")

    @model_validator(mode="after")
    def _items(self) -> SynthesisConfig:
        if self.answer_with_items is not None and self.answer_with_items > self.top_k:
            raise ValueError(f"answer_with_items ({self.answer_with_items}) must not exceed top_k ({self.top_k})")
        return self

    @property
    def prompt_items(self) -> int:
        """Items that the VLM answers with, the best."""
        return self.top_k if self.answer_with_items is None else self.answer_with_items
