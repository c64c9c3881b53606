"""The section `ingest`: where knowledge items come from, and how their images are fetched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from comem_ray.config.base import ImageConfig, Section, WorkersConfig


class FetchConfig(Section):
    """How images given by URL are fetched. Private, loopback and link-local addresses are refused by default."""

    enabled: bool = Field(True, description="false rejects rows whose image is only a URL; a later run may retry them")
    allow_private: bool = Field(
        False, description="true also fetches from private and loopback addresses, such as a mirror of your own"
    )
    user_agent: str = Field(
        "comem-ray/0.1 (research crawler; set ingest.fetch.user_agent to name yourself and a contact)",
        min_length=8,
        description="User-Agent header; many hosts want your name and a contact in it, and refuse others (401, 403)",
    )
    timeout_s: float = Field(
        20, gt=0, description="seconds to wait for a connection, and for each read; more waits longer for slow hosts"
    )
    per_host: int = Field(
        4, ge=1, description="simultaneous requests to one host, per worker; more is faster and less polite"
    )
    threads: int = Field(16, ge=1, description="simultaneous requests to all hosts, per worker")
    retries: int = Field(3, ge=0, description="further tries after a timeout, a 429 or a 5xx")
    backoff_s: float = Field(1, ge=0, description="seconds before the first retry; each further retry waits twice that")
    cache: str | None = Field(
        None,
        description="folder that keeps fetched images, so that no URL is fetched twice; never a page in place of one; "
        "null keeps none",
    )


SourceFormat = Literal[
    "auto", "wit_tsv", "wit_parquet", "jsonl", "webdataset", "img2dataset", "hf_dataset", "image_folder",
    "clip_retrieval",
]  # fmt: skip
ItemField = Literal["image", "title", "text", "language", "page_url", "image_url", "item_id"]


class SourceConfig(Section):
    """One file, a glob of files of one format, or a folder of a format that has folders."""

    path: str = Field(min_length=1, description="file, glob or folder; a relative path is below $COMEM_HOME")
    format: SourceFormat = Field(
        "auto", description="format of the files; 'auto' chooses it by the ending of the name, of a folder by its files"
    )
    images: str | None = Field(
        None, description="folder that relative image paths of the rows start from; null: the folder of the file"
    )
    columns: dict[ItemField, str] = Field(
        default_factory=dict,
        description="columns by the field of an item that they hold, such as {text: alt, title: name}, where they have "
        "unusual names; not for wit_tsv, wit_parquet and jsonl",
    )
    clip_model: str | None = Field(
        None, description="clip_retrieval: the model that made the embeddings; it must be that of clip.model"
    )
    clip_pretrained: str | None = Field(
        None, description="clip_retrieval: the weights that made the embeddings; they must be those of clip.pretrained"
    )


class IngestConfig(Section):
    """Source rows become knowledge items: an image, a title and a text each."""

    sources: list[SourceConfig] = Field(min_length=1, description="files to read, in this order")
    rows_per_shard: int = Field(
        2_000, ge=1, description="source rows per shard; fewer lose less work when a run is killed, but make more files"
    )
    images: ImageConfig = Field(ImageConfig(), description="limits and format of the items' images")
    fetch: FetchConfig = Field(FetchConfig(), description="how images given by URL are fetched")
    retry_failed: bool = Field(True, description="true: a rerun tries again the images that a network failure kept out")
    recheck: bool = Field(
        False, description="true: a rerun reads images that are local files again, for they may have been replaced"
    )
    workers: WorkersConfig = Field(WorkersConfig(), description="actors that load and re-encode images")
