"""The configuration of a run: one named, complete, validated YAML file.

Every job and the Serve application read the same file. A relative path in it is below $COMEM_HOME (default ~/comem), a
folder on a filesystem that all nodes see, so that a file means the same on a laptop, in a job and in a replica.
Knows nothing of Ray, torch or the stages.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from comem_ray.config_base import Pictures, Workers
from comem_ray.config_base import Section as _Section
from comem_ray.config_evaluation import Evaluation
from comem_ray.config_synthesis import Synthesis

Precision = Literal["float32", "bfloat16", "float16"]


class ConfigError(ValueError):
    """A configuration that cannot be used. The message names each field and says what would be right."""


class Fetch(_Section):
    """How pictures given by URL are fetched. Private, loopback and link-local addresses are refused by default."""

    enabled: bool = Field(True, description="false rejects rows whose picture is only a URL (retryable)")
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


class Source(_Section):
    """One file, or a glob of files of one format."""

    path: str = Field(min_length=1)
    format: Literal["auto", "wit_tsv", "wit_parquet", "jsonl"] = Field("auto", description="'auto' goes by the ending")
    pictures: str | None = Field(None, description="folder that relative picture paths of the rows start from")


class Ingest(_Section):
    sources: list[Source] = Field(min_length=1)
    rows_per_shard: int = Field(2_000, ge=1, description="source rows a shard; fewer lose less when killed")
    pictures: Pictures = Pictures()
    fetch: Fetch = Fetch()
    retry_failed: bool = Field(True, description="a rerun tries again the pictures that a network failure kept out")
    workers: Workers = Workers()


class Clip(_Section):
    """The open_clip model of the retriever."""

    model: str = Field(description="open_clip model name, or the path of a model configuration (.json)")
    pretrained: str | None = Field(None, description="open_clip tag or path of weights; null starts from random ones")
    precision: Precision = Field("float32", description="float16 or bfloat16 on a GPU")
    batch_size: int = Field(64, ge=1, description="pictures a forward pass; more needs more memory")
    decode_threads: int = Field(1, ge=1, description="threads that decode the next batches meanwhile")
    texts: bool = Field(
        True, description="embed the items' texts too; false saves their time, retrieves by picture only"
    )
    workers: Workers = Workers()


class Index(_Section):
    """The FAISS index (inner product on L2-normalised vectors)."""

    factory: str = Field("Flat", description="FAISS factory string: Flat, IVF1024,Flat, IVF4096,PQ64, HNSW32, ...")
    training_items: int = Field(200_000, ge=1, description="items sampled (seeded) to train IVF and PQ")
    search: dict[str, int] = Field(default_factory=dict, description="search parameters: nprobe, efSearch, ...")
    max_memory_gb: float = Field(4, gt=0, description="refuses an index whose vectors would take more, in GB")
    gpu: bool = Field(False, description="train and add on a GPU (needs faiss-gpu); the file is a CPU index")
    recall_queries: int = Field(200, ge=1, description="held-out queries of the recall and latency figures")
    workers: Workers = Field(
        Workers(), description="one actor builds; its FAISS threads follow cpus; gpu needs gpus: 1"
    )


class Retrieval(_Section):
    top_k: int = Field(10, ge=1, description="items a question gets by default")
    by: Literal["picture", "text", "both"] = Field("picture", description="what of a question is compared")
    text_weight: float = Field(0.5, ge=0, le=1, description="late fusion ('both'): weight of the text's score")
    language: str | None = Field(
        None, description="items of this language only unless a question names another; null searches all"
    )


class PixelLimits(_Section):
    """Limits on the pixels a picture is resized to before the vision tower; 28*28 pixels make one token."""

    min: int | None = Field(None, ge=1, description="pixels; null sets none")
    max: int | None = Field(None, ge=1, description="pixels; null sets none")

    @model_validator(mode="after")
    def _ordered(self) -> PixelLimits:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min}) must not exceed max ({self.max})")
        return self


class Backbone(_Section):
    """The VLM: Qwen2.5-VL or Qwen2-VL of any size."""

    model: str = Field(description="hub name or folder of the checkpoint")
    precision: Precision | Literal["auto"] = Field(
        "bfloat16", description="dtype of the weights; 'auto': float32 on a CPU that has no bfloat16 instructions"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    item_pixels: PixelLimits = PixelLimits(min=16 * 28 * 28, max=64 * 28 * 28)
    question_pixels: PixelLimits = PixelLimits(min=256 * 28 * 28, max=1280 * 28 * 28)


class Adapter(_Section):
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


class Memory(_Section):
    """Precomputation of memory."""

    languages: list[str] | None = Field(
        None, description="items of these languages are encoded ahead of time, others when first asked for; null: all"
    )
    batch_tokens: int = Field(4_096, ge=1, description="tokens a forward pass, padding included; more needs memory")
    workers: Workers = Workers()


class Reasoner(_Section):
    item_order: Literal["best_first", "best_last"] = Field("best_first", description="place of the best item in front")
    question_vision: Literal["base", "adapter"] = Field(
        "base", description="vision tower of the question's picture; 'adapter' for the authors' checkpoints"
    )
    max_new_tokens: int = Field(64, ge=1, description="tokens of an answer")
    max_prompt_tokens: int = Field(32_768, ge=16, description="longest prompt, memory included, in tokens")
    temperature: float = Field(0, ge=0, description="0 is greedy; the paper's evaluation has 0.1")
    top_p: float = Field(1, gt=0, le=1, description="the paper's evaluation has 0.001")
    repetition_penalty: float = Field(1, gt=0, description="the paper's evaluation has 1.05")


class Validation(_Section):
    """Questions about entities that training never sees, answered during training; exact match by each one's rule."""

    data: str = Field(description="folder of validation shards (parquet, TRAINING_SCHEMA, gold answers in provenance)")
    every: int = Field(100, ge=1, description="steps between validations; the last step always has one")
    questions: int = Field(200, ge=1, description="questions asked, the first ones; more is dearer and surer")
    modes: list[Literal["none", "rag", "memory"]] = Field(["none", "rag", "memory"], min_length=1)


class Training(_Section):
    """The fine-tune of the adapter. One epoch of the paper is 15.6 thousand samples in some 975 steps."""

    data: str = Field(description="folder of training shards (parquet, TRAINING_SCHEMA)")
    start: str | None = Field(None, description="adapter folder to go on from; null: new weights of adapter's sizes")
    items: int = Field(3, ge=1, description="items of a sample, best first; more is dearer and steadier")
    items_together: bool = Field(
        False,
        description="samples over the same items come together: a micro-batch encodes an item once",
    )
    epochs: int = Field(1, ge=1)
    max_steps: int | None = Field(None, ge=1, description="optimizer steps; null: as many as the epochs have")
    global_batch: int = Field(16, ge=1, description="samples a step, over all workers")
    micro_batch: int = Field(4, ge=1, description="samples a forward pass of a worker; more needs memory")
    learning_rate: float = Field(5e-5, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    warmup: float = Field(0.03, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    clip_norm: float = Field(3.0, gt=0, description="gradient norm above which gradients are scaled down")
    gradient_checkpointing: bool = Field(True, description="recompute in backward: less memory, a third more time")
    distillation: float = Field(
        0.0, ge=0, description="weight of the KL to the rag pass of the same backbone; 0 is off"
    )
    checkpoint_every: int = Field(100, ge=1, description="steps between checkpoints; fewer lose less when killed")
    keep_checkpoints: int = Field(2, ge=1, description="checkpoints kept, the newest")
    max_loss: float = Field(20.0, gt=0, description="a loss above it, or one that is no number, stops the run")
    validation: Validation | None = None
    peak_tflops: float | None = Field(
        None, gt=0, description="of a worker's device, dense, for MFU; null: known for common GPUs, else no MFU"
    )
    workers: Workers = Workers()


class Api(_Section):
    """Limits of the HTTP API; what exceeds them is answered with a 4xx."""

    max_body_bytes: int = Field(20_000_000, ge=1_000, description="bytes of a request")
    max_picture_pixels: int = Field(50_000_000, ge=1, description="pixels of a question's picture")
    max_question_chars: int = Field(2_000, ge=1, description="characters of a question")
    max_top_k: int = Field(50, ge=1, description="items a question may ask for")
    max_new_tokens: int = Field(1_000, ge=1, description="tokens an answer may ask for")
    max_batch: int = Field(8, ge=1, description="questions of different users decoded together")


class Config(_Section):
    name: str = Field(min_length=1)
    root: str = Field(min_length=1, description="folder of the run's artifacts")
    seed: int = Field(0, ge=0)
    ingest: Ingest
    clip: Clip
    index: Index = Index()
    retrieval: Retrieval = Retrieval()
    backbone: Backbone
    adapter: Adapter = Adapter()
    memory: Memory = Memory()
    reasoner: Reasoner = Reasoner()
    synthesis: Synthesis | None = None
    evaluation: Evaluation | None = None
    training: Training | None = None
    api: Api = Api()

    def folder(self, stage: str) -> Path:
        """Absolute folder of a stage's artifact: "items", "embeddings", "index", "memory", ..."""
        return resolve(self.root) / stage


def resolve(path: str) -> Path:
    """The absolute path of a path in a configuration: relative ones are below $COMEM_HOME (default ~/comem)."""
    home = Path(os.environ.get("COMEM_HOME") or "~/comem").expanduser().absolute()
    return home / Path(path).expanduser()


def local_or_name(value: str) -> str:
    """The absolute path where `value` names something on disk, else `value` itself (a hub name or tag)."""
    path = resolve(value)
    return str(path) if path.exists() else value


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads and validates a configuration file. `overrides` are "section.field=value" (value in YAML).

    Raises ConfigError, with every wrong field named, where file or override cannot be used.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, it holds {type(data).__name__}")
    for override in overrides:
        _override(data, override)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(_sentence(e) for e in error.errors())) from error


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override!r}: want section.field=value, such as index.factory=HNSW32")
    *parents, last = key.strip().split(".")
    node: Any = data
    for name in parents:
        node = _child(node, name)
    if isinstance(node, list) and last.isdecimal() and int(last) < len(node):
        last = int(last)  # type: ignore[assignment]
    elif not isinstance(node, dict):
        raise ConfigError(f"--set {override!r}: {'.'.join(parents)} has no field {last!r}")
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not YAML: {error}") from error


def _child(node: Any, name: str) -> Any:
    if isinstance(node, list):
        return node[int(name)] if name.isdecimal() and int(name) < len(node) else None
    if not isinstance(node, dict):
        return None
    if node.get(name) is None:
        node[name] = {}
    return node[name]


def _sentence(error: Any) -> str:
    field = ".".join(str(part) for part in error["loc"]) or "(top level)"
    if error["type"] == "extra_forbidden":
        return f"field {field}: there is no such field"
    if error["type"] == "missing":
        return f"field {field}: is missing"
    return f"field {field}: {error['msg']}, got {error['input']!r}"
