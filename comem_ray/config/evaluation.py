"""The section `evaluation` of the configuration: what is asked, and in which ways."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from comem_ray.config.base import Section, WorkersConfig

TaskName = Literal[
    "infoseek", "oven", "mrag", "okvqa", "aokvqa", "aokvqa-mc", "viquae", "cvqa", "coco", "encyclopedic_vqa", "jsonl"
]  # fmt: skip
"""The one list of all tasks; each has a module of its name in comem_ray/tasks."""
Text = Annotated[str, Field(min_length=1)]


class EvaluationSourceConfig(Section):
    """A task in one language, in the files of its authors (docs/evaluation.md lists them)."""

    task: TaskName = Field(description="which set of questions, or which format of one's own")
    name: str | None = Field(
        None, pattern=r"^\w[\w.-]*$", description="name in the report and of its folder; null: task and language"
    )
    paths: list[Text] = Field(min_length=1, description="files or globs of the questions")
    references: list[Text] = Field(
        [],
        description="okvqa: the file of the annotations; encyclopedic_vqa: iNaturalist's JSON that names images",
    )
    question_types: str | None = Field(None, description="infoseek: infoseek_val_qtype.jsonl")
    entities: str | None = Field(None, description="infoseek: infoseek_val_withkb.jsonl, for the recall of retrieval")
    titles: str | None = Field(None, description="oven: Wiki6M_ver_1_0_title_only.jsonl, to which names are linked")
    vocabulary: str | None = Field(
        None, description="oven: vocab.txt of bert-base-uncased, whose word pieces link names as the authors do"
    )
    images: list[Text] | None = Field(
        None, description="folders, zips, or parquet files; null: beside the questions, or in their own rows"
    )
    split: str | None = Field(None, description="questions of this group alone: a split, scenario, subset; null: all")
    language: str | None = Field(None, description="language of the questions; null: as the files say, else en")
    limit: int | None = Field(None, ge=1, description="questions asked, the first; null: all")
    answer_format: Literal["boxed", "plain"] = Field(
        "boxed", description="'boxed' asks to reason and to box the answer; 'plain' asks for nothing"
    )
    instruction: str | None = Field(None, description="sentence after the question; null: that of answer_format")

    @property
    def label(self) -> str:
        """The name of the source."""
        return self.name or (f"{self.task}-{self.language}" if self.language else self.task)


class GalleryConfig(Section):
    """Questions that report.html shows with images, answers and sources. It changes no figure."""

    questions: int = Field(60, ge=0, description="most that are shown, wrong ones first; more makes the page larger")
    max_mb: float = Field(1.2, ge=0, description="megabytes of all galleries of a report together")
    image_side: int = Field(176, ge=16, description="pixels of the longer side of a question's image")


class EvaluationConfig(Section):
    """Every question is asked in every mode with every k. Retrieval runs once per question and knowledge size."""

    questions: str | None = Field(None, min_length=1, description="parquet file of questions (EVALUATION_SCHEMA)")
    sources: list[EvaluationSourceConfig] = Field([], description="tasks in their published files")
    modes: list[Literal["none", "rag", "memory"]] = Field(
        ["none", "rag", "memory"], min_length=1, description="modes in which every question is asked"
    )
    k: list[Annotated[int, Field(ge=1)]] = Field([1, 3, 10], min_length=1, description="items before a question")
    knowledge_sizes: list[Annotated[int, Field(ge=1)] | Literal["all"]] = Field(
        ["all"], min_length=1, description="items that retrieval searches; n: a seeded subset with all right items"
    )
    gold_positions: list[int] = Field(
        [],
        description="further arms: the right item put at each of these positions, from 1, among its nearest items",
    )
    items_language: Literal["retrieval", "question"] = Field(
        "retrieval", description="language of the items searched: retrieval.language, or that of each question"
    )
    limit: int | None = Field(None, ge=1, description="questions asked of the file `questions`, the first; null: all")
    batch: int = Field(8, ge=1, description="questions decoded together; more needs memory")
    questions_per_unit: int = Field(32, ge=1, description="fewer lose less when killed")
    timed: int = Field(8, ge=0, description="questions asked once more, one at a time, for the times of an answer")
    gallery: GalleryConfig = Field(GalleryConfig(), description="questions that the report shows")
    workers: WorkersConfig = Field(WorkersConfig(), description="actors that answer; each holds a backbone")

    @model_validator(mode="after")
    def _distinct(self) -> EvaluationConfig:
        names = Counter(source.label for source in self.sources)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"two sources are called {twice[0]!r}: give them names (sources[].name)")
        return self
