"""`Config`: the whole configuration of a run, section by section."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from comem_ray.config.api import ApiConfig, LiveConfig
from comem_ray.config.base import Section
from comem_ray.config.evaluation import EvaluationConfig
from comem_ray.config.ingest import IngestConfig
from comem_ray.config.model import AdapterConfig, BackboneConfig, MemoryConfig, ReasonerConfig
from comem_ray.config.retrieval import ClipConfig, IndexConfig, RetrievalConfig
from comem_ray.config.synthesis import SynthesisConfig
from comem_ray.config.training import TrainingConfig
from comem_ray.home import resolve


class Config(Section):
    """The configuration of a run. A relative path in it is below $COMEM_HOME (default ~/comem)."""

    name: str = Field(min_length=1, description="name of the run, in logs and reports")
    root: str = Field(min_length=1, description="folder of the run's artifacts")
    seed: int = Field(0, ge=0, description="seed of everything random in the run")
    ingest: IngestConfig = Field(description="source files and their images")
    clip: ClipConfig = Field(description="CLIP model of the retriever")
    index: IndexConfig = Field(IndexConfig(), description="FAISS index over the items")
    retrieval: RetrievalConfig = Field(RetrievalConfig(), description="choice of the items for a question")
    backbone: BackboneConfig = Field(description="vision-language model that encodes and answers")
    adapter: AdapterConfig = Field(AdapterConfig(), description="trained LoRA and Q-Former")
    memory: MemoryConfig = Field(MemoryConfig(), description="encoding of items ahead of time")
    reasoner: ReasonerConfig = Field(ReasonerConfig(), description="prompts and decoding")
    synthesis: SynthesisConfig | None = Field(
        None, description="training samples to make; null: jobs.synthesize is off"
    )
    evaluation: EvaluationConfig | None = Field(None, description="evaluation; null: jobs.evaluate is off")
    training: TrainingConfig | None = Field(None, description="fine-tune of the adapter; null: jobs.train is off")
    api: ApiConfig = Field(ApiConfig(), description="limits of the HTTP endpoint")
    live: LiveConfig = Field(LiveConfig(), description="knowledge that is added while the service runs")
    scoring_rules: dict[str, Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]] = Field(
        {}, description="scoring rules of your own: name -> module:function(prediction, gold) -> score in 0..1"
    )

    def folder(self, stage: str) -> Path:
        """Absolute folder of a stage's artifact: "items", "embeddings", "index", "memory", ..."""
        return resolve(self.root) / stage
