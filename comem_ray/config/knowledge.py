"""The section `ingest`: where knowledge items come from, and how their images are fetched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from comem_ray.config.base import ImageConfig, Section, WorkersConfig


class FetchConfig(Section):
    """How images given by URL are fetched. Private, loopback and link-local addresses are refused by default."""

    enabled: bool = Field(True, description="false rejects rows whose image is only a URL (retryable)")
    allow_private: bool = Field(False, description="true permits private and loopback addresses (a mirror of your own)")
    user_agent: str = Field(
        "comem-ray/0.1 (research crawler; set ingest.fetch.user_agent to name yourself and a contact)", min_length=8
    )
    timeout_s: float = Field(20, gt=0, description="seconds for a connection and for a read")
    per_host: int = Field(4, ge=1, description="requests under way at once to one host, per worker")
    threads: int = Field(16, ge=1, description="requests under way at once, per worker")
    retries: int = Field(3, ge=0, description="further tries after a timeout, a 429 or a 5xx")
    backoff_s: float = Field(1, ge=0, description="seconds before the first retry, doubled each time")
    cache: str | None = Field(None, description="folder of fetched bytes, shared by rows of one URL; null keeps none")


class SourceConfig(Section):
    """One file, or a glob of files of one format."""

    path: str = Field(min_length=1)
    format: Literal["auto", "wit_tsv", "wit_parquet", "jsonl"] = Field("auto", description="'auto' goes by the ending")
    images: str | None = Field(None, description="folder that relative image paths of the rows start from")


class IngestConfig(Section):
    sources: list[SourceConfig] = Field(min_length=1)
    rows_per_shard: int = Field(2_000, ge=1, description="source rows a shard; fewer lose less when killed")
    images: ImageConfig = ImageConfig()
    fetch: FetchConfig = FetchConfig()
    retry_failed: bool = Field(True, description="a rerun tries again the images that a network failure kept out")
    workers: WorkersConfig = WorkersConfig()
