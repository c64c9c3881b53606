"""The configuration of a run: one named, complete, validated YAML file. One module per group of sections.

Every job and the Serve application read the same file. A relative path in it is below $COMEM_HOME (default ~/comem), a
folder on a filesystem that all nodes see. So a file means the same on a laptop, in a job and in a replica.
Knows nothing of Ray, torch or the stages.
"""

from comem_ray.config.api import ApiConfig, LiveConfig
from comem_ray.config.base import ImageConfig, Precision, WorkersConfig
from comem_ray.config.evaluation import EvaluationConfig, EvaluationSourceConfig, GalleryConfig
from comem_ray.config.ingest import FetchConfig, IngestConfig, SourceConfig
from comem_ray.config.loading import ConfigError, load_config
from comem_ray.config.model import AdapterConfig, BackboneConfig, MemoryConfig, PixelLimitsConfig, ReasonerConfig
from comem_ray.config.retrieval import ClipConfig, IndexConfig, RetrievalConfig
from comem_ray.config.run import Config
from comem_ray.config.synthesis import SynthesisConfig, SynthesisSourceConfig, TranslationConfig
from comem_ray.config.training import TrainingConfig, ValidationConfig
from comem_ray.home import resolve

__all__ = [
    "AdapterConfig",
    "ApiConfig",
    "BackboneConfig",
    "ClipConfig",
    "Config",
    "ConfigError",
    "EvaluationConfig",
    "EvaluationSourceConfig",
    "FetchConfig",
    "GalleryConfig",
    "ImageConfig",
    "IndexConfig",
    "IngestConfig",
    "LiveConfig",
    "MemoryConfig",
    "PixelLimitsConfig",
    "Precision",
    "ReasonerConfig",
    "RetrievalConfig",
    "SourceConfig",
    "SynthesisConfig",
    "SynthesisSourceConfig",
    "TrainingConfig",
    "TranslationConfig",
    "ValidationConfig",
    "WorkersConfig",
    "load_config",
    "resolve",
]
