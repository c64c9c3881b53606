"""`Config`: the whole configuration of a run, section by section."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from comem_ray.config.api import ApiConfig
from comem_ray.config.base import Section
from comem_ray.config.evaluation import EvaluationConfig
from comem_ray.config.knowledge import IngestConfig
from comem_ray.config.model import AdapterConfig, BackboneConfig, MemoryConfig, ReasonerConfig
from comem_ray.config.retrieval import ClipConfig, IndexConfig, RetrievalConfig
from comem_ray.config.synthesis import SynthesisConfig
from comem_ray.config.training import TrainingConfig


class Config(Section):
    name: str = Field(min_length=1)
    root: str = Field(min_length=1, description="folder of the run's artifacts")
    seed: int = Field(0, ge=0)
    ingest: IngestConfig
    clip: ClipConfig
    index: IndexConfig = IndexConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    backbone: BackboneConfig
    adapter: AdapterConfig = AdapterConfig()
    memory: MemoryConfig = MemoryConfig()
    reasoner: ReasonerConfig = ReasonerConfig()
    synthesis: SynthesisConfig | None = None
    evaluation: EvaluationConfig | None = None
    training: TrainingConfig | None = None
    api: ApiConfig = ApiConfig()
    scoring_rules: dict[str, Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]] = Field(
        {}, description="scoring rules of your own: name -> module:function(prediction, gold) -> score in 0..1"
    )

    def folder(self, stage: str) -> Path:
        """Absolute folder of a stage's artifact: "items", "embeddings", "index", "memory", ..."""
        return resolve(self.root) / stage


def resolve(path: str) -> Path:
    """The absolute path of a path in a configuration: relative ones are below $COMEM_HOME (default ~/comem)."""
    home = Path(os.environ.get("COMEM_HOME") or "~/comem").expanduser().absolute()
    return home / Path(path).expanduser()
