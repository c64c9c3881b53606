"""The sections `clip`, `index` and `retrieval`: from a question to the nearest items."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from comem_ray.config.base import Language, Precision, Section, WorkersConfig


class ClipConfig(Section):
    """The open_clip model of the retriever."""

    model: str = Field(description="open_clip model name, or the path of a model configuration (.json)")
    pretrained: str | None = Field(
        None, description="open_clip tag, or the path of weights (.safetensors); null starts from random weights"
    )
    precision: Precision = Field(
        "float32", description="dtype on a GPU: float16 and bfloat16 are faster; a CPU always computes in float32"
    )
    batch_size: int = Field(
        64, ge=1, description="images per forward pass; more is faster on a GPU and needs more memory"
    )
    decode_threads: int = Field(
        1, ge=1, description="threads that decode the next batches meanwhile; enough of them keep a GPU busy"
    )
    texts: bool = Field(
        True, description="embed the items' texts too; false saves the time, and retrieval is by image only"
    )
    workers: WorkersConfig = Field(WorkersConfig(), description="actors that embed items, one CLIP model each")


class IndexConfig(Section):
    """The FAISS index (inner product of L2-normalised vectors)."""

    factory: str = Field(
        "Flat",
        description="FAISS factory string: 'Flat' is exact; 'IVF1024,Flat', 'HNSW32' are faster; 'IVF4096,PQ64' is "
        "smaller too; the faster and smaller ones find fewer of the nearest items. One that cannot search by language "
        "or give its vectors back is refused: take 'IVF1,PQ64' for 'PQ64', and ',RFlat' behind 'PQ64x4fs'",
    )
    training_items: int = Field(
        200_000, ge=1, description="items that train IVF and PQ, drawn by seed; more is better and slower"
    )
    search: dict[str, int] = Field(
        default_factory=dict,
        description="search parameters of FAISS, such as nprobe and efSearch; more finds more and is slower",
    )
    max_memory_gb: float = Field(4, gt=0, description="largest index in GB; a larger one is refused before it is built")
    gpu: bool = Field(False, description="train and add on a GPU (needs faiss-gpu); the file is a CPU index")
    recall_queries: int = Field(
        200, ge=1, description="held-out queries of the recall and latency figures; more is surer and slower"
    )
    workers: WorkersConfig = Field(
        WorkersConfig(), description="one actor builds; its FAISS threads follow cpus; gpu needs gpus: 1"
    )


class RetrievalConfig(Section):
    """How the items nearest to a question are chosen."""

    top_k: int = Field(10, ge=1, description="items per question, unless the question names another number")
    by: Literal["image", "text", "both"] = Field(
        "image", description="part of the question that is compared: its image, its text, or both (late fusion)"
    )
    text_weight: float = Field(
        0.5, ge=0, le=1, description="weight of the text's score in 'both'; the image's score has the rest"
    )
    language: Language | None = Field(
        None, description="items of this language (BCP 47) only, unless a question names another; null searches all"
    )
