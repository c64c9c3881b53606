"""The section `evaluation` of the configuration: what is asked, and in which ways."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from comem_ray.config_base import Section, Workers


class Evaluation(Section):
    """Every question is asked in every mode with every k; retrieval is done once a question."""

    questions: str = Field(min_length=1, description="parquet file of questions (EVALUATION_SCHEMA)")
    modes: list[Literal["none", "rag", "memory"]] = Field(["none", "rag", "memory"], min_length=1)
    k: list[int] = Field([1, 3, 10], min_length=1, description="items before a question")
    places: list[int] = Field(
        [], description="also: the right item at each of these places (from 1) among its nearest, as many as the last"
    )
    limit: int | None = Field(None, ge=1, description="questions asked, the first of the file; null: all")
    batch: int = Field(8, ge=1, description="questions decoded together; more needs memory")
    questions_per_unit: int = Field(32, ge=1, description="fewer lose less when killed")
    timed: int = Field(8, ge=0, description="questions asked once more, one at a time, for the times of an answer")
    workers: Workers = Workers()
