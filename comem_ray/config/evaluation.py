"""The section `evaluation` of the configuration: what is asked, and in which ways."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from comem_ray.config.base import Section, WorkersConfig

Benchmark = Literal[
    "infoseek", "oven", "mrag", "okvqa", "aokvqa", "aokvqa-mc", "viquae", "cvqa", "coco", "jsonl"
]  # fmt: skip
Text = Annotated[str, Field(min_length=1)]


class EvaluationSourceConfig(Section):
    """A published benchmark, in one language, in the files of its authors (docs/evaluation.md lists them)."""

    benchmark: Benchmark
    name: str | None = Field(
        None, pattern=r"^\w[\w.-]*$", description="in the report and of its folder; null: the benchmark and language"
    )
    paths: list[Text] = Field(min_length=1, description="files or globs of the questions")
    references: list[Text] = Field([], description="files of the answers, where they are apart (okvqa's annotations)")
    question_types: str | None = Field(None, description="infoseek: infoseek_val_qtype.jsonl")
    entities: str | None = Field(None, description="infoseek: infoseek_val_withkb.jsonl, for the recall of retrieval")
    titles: str | None = Field(None, description="oven: Wiki6M_ver_1_0_title_only.jsonl, to which names are linked")
    images: list[Text] | None = Field(
        None, description="a folder, a zip, or parquet files; null: beside the questions, or in their own rows"
    )
    split: str | None = Field(None, description="questions of this group alone: a split, scenario, subset; null: all")
    language: str | None = Field(None, description="of the questions; null: as the files say, else en")
    limit: int | None = Field(None, ge=1, description="questions asked, the first; null: all")
    answer_format: Literal["boxed", "plain"] = Field(
        "boxed", description="'boxed' asks to reason and to box the answer; 'plain' asks for nothing"
    )
    instruction: str | None = Field(None, description="sentence after the question; null: that of answer_format")

    @property
    def label(self) -> str:
        """The name of the source."""
        return self.name or (f"{self.benchmark}-{self.language}" if self.language else self.benchmark)

    @model_validator(mode="after")
    def _whole(self) -> EvaluationSourceConfig:
        owners = {"question_types": "infoseek", "entities": "infoseek", "titles": "oven", "references": "okvqa"}
        if wrong := [f for f, owner in owners.items() if getattr(self, f) and self.benchmark != owner]:
            raise ValueError(f"{wrong[0]} are {owners[wrong[0]]}'s, not {self.benchmark}'s")
        return self


class GalleryConfig(Section):
    """Questions that report.html shows with images, answers and sources; it changes no figure."""

    questions: int = Field(60, ge=0, description="most that are shown, wrong ones first; more makes the page larger")
    max_mb: float = Field(1.2, ge=0, description="megabytes of the gallery, in a report of several worlds of all")
    image_side: int = Field(176, ge=16, description="pixels of the longer side of a question's image")


class EvaluationConfig(Section):
    """Every question is asked in every mode with every k; retrieval is done once a question and knowledge size."""

    questions: str | None = Field(None, min_length=1, description="parquet file of questions (EVALUATION_SCHEMA)")
    sources: list[EvaluationSourceConfig] = Field([], description="published benchmarks, beside `questions` or alone")
    modes: list[Literal["none", "rag", "memory"]] = Field(["none", "rag", "memory"], min_length=1)
    k: list[Annotated[int, Field(ge=1)]] = Field([1, 3, 10], min_length=1, description="items before a question")
    knowledge_sizes: list[Annotated[int, Field(ge=1)] | Literal["all"]] = Field(
        ["all"], min_length=1, description="items that retrieval sees; n: a seeded part that holds all right items"
    )
    gold_positions: list[int] = Field(
        [],
        description="also: the right item at each of these positions (from 1) among its nearest, as many as the last",
    )
    items_language: Literal["retrieval", "question"] = Field(
        "retrieval", description="items searched: those that retrieval.language says, or of each question's language"
    )
    limit: int | None = Field(None, ge=1, description="of `questions`: those asked, the first of the file; null: all")
    batch: int = Field(8, ge=1, description="questions decoded together; more needs memory")
    questions_per_unit: int = Field(32, ge=1, description="fewer lose less when killed")
    timed: int = Field(8, ge=0, description="questions asked once more, one at a time, for the times of an answer")
    gallery: GalleryConfig = GalleryConfig()
    workers: WorkersConfig = WorkersConfig()

    @model_validator(mode="after")
    def _distinct(self) -> EvaluationConfig:
        names = Counter(source.label for source in self.sources)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"two sources are called {twice[0]!r}: give them names (sources[].name)")
        return self
