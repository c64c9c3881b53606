"""What sections of the configuration have in common: their base, and the sections that several stages use."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["float32", "bfloat16", "float16"]


class Section(BaseModel):
    # Defaults are validated too: 32 of a float field is 32.0 wherever it comes from, and fingerprints agree.
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class WorkersConfig(Section):
    """An actor pool of a stage. Peak use of a node is `count` times the rest."""

    count: int = Field(1, ge=1, description="actors; on a CPU, one a core is fastest; each holds a model")
    cpus: float = Field(1, gt=0, description="cores an actor reserves; its threads follow this number")
    gpus: float = Field(0, ge=0, description="GPUs an actor reserves, a fraction shares one; 0 computes on the CPU")


class ImageConfig(Section):
    """What a stored image may be and becomes."""

    max_side: int = Field(512, ge=16, description="pixels of the longest side of a stored image; more is dearer")
    resize: Literal["keep_aspect", "square"] = Field("keep_aspect", description="'square' squashes (the paper's code)")
    max_pixels: int = Field(50_000_000, ge=1, description="pixels of a source image above which it is rejected")
    max_bytes: int = Field(30_000_000, ge=1, description="bytes of a source image above which it is rejected")
    jpeg_quality: int = Field(90, ge=1, le=100, description="quality of re-encoded images; more is larger")
