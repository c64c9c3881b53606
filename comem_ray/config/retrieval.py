"""The sections `clip`, `index` and `retrieval`: from a question to the nearest items."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from comem_ray.config.base import Precision, Section, WorkersConfig


class ClipConfig(Section):
    """The open_clip model of the retriever."""

    model: str = Field(description="open_clip model name, or the path of a model configuration (.json)")
    pretrained: str | None = Field(None, description="open_clip tag or path of weights; null starts from random ones")
    precision: Precision = Field("float32", description="float16 or bfloat16 on a GPU")
    batch_size: int = Field(64, ge=1, description="images a forward pass; more needs more memory")
    decode_threads: int = Field(1, ge=1, description="threads that decode the next batches meanwhile")
    texts: bool = Field(True, description="embed the items' texts too; false saves their time, retrieves by image only")
    workers: WorkersConfig = WorkersConfig()


class IndexConfig(Section):
    """The FAISS index (inner product on L2-normalised vectors)."""

    factory: str = Field("Flat", description="FAISS factory string: Flat, IVF1024,Flat, IVF4096,PQ64, HNSW32, ...")
    training_items: int = Field(200_000, ge=1, description="items sampled (seeded) to train IVF and PQ")
    search: dict[str, int] = Field(default_factory=dict, description="search parameters: nprobe, efSearch, ...")
    max_memory_gb: float = Field(4, gt=0, description="refuses an index whose vectors would take more, in GB")
    gpu: bool = Field(False, description="train and add on a GPU (needs faiss-gpu); the file is a CPU index")
    recall_queries: int = Field(200, ge=1, description="held-out queries of the recall and latency figures")
    workers: WorkersConfig = Field(
        WorkersConfig(), description="one actor builds; its FAISS threads follow cpus; gpu needs gpus: 1"
    )


class RetrievalConfig(Section):
    top_k: int = Field(10, ge=1, description="items a question gets by default")
    by: Literal["image", "text", "both"] = Field("image", description="what of a question is compared")
    text_weight: float = Field(0.5, ge=0, le=1, description="late fusion ('both'): weight of the text's score")
    language: str | None = Field(
        None, description="items of this language only unless a question names another; null searches all"
    )
