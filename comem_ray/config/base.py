"""What the sections of the configuration share: their base class, and the sections that several stages use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from comem_ray.language import normalize_language

Language = Annotated[str, AfterValidator(normalize_language)]
"""A language tag (BCP 47) in its one form: `en_us` is read as `en-US`."""

Precision = Literal["float32", "bfloat16", "float16"]


class Section(BaseModel):
    # Defaults are validated too: 32 of a float field is 32.0 wherever it comes from, and fingerprints agree.
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class WorkersConfig(Section):
    """The actor pool of a stage. A node needs `count` times the memory, cores and GPUs of one actor."""

    count: int = Field(
        1, ge=1, description="number of actors, each with its own model; one per core is fastest on a CPU"
    )
    cpus: float = Field(1, gt=0, description="cores that one actor reserves")
    gpus: float = Field(
        0, ge=0, description="GPUs that one actor reserves; a fraction shares a GPU, 0 computes on the CPU"
    )
    threads: int | None = Field(
        None, ge=1, description="threads that one actor computes with; null: one per core that it reserves"
    )

    @property
    def thread_count(self) -> int:
        """Threads that one actor computes with. Sums depend on their number in the last digits."""
        return self.threads or max(1, int(self.cpus))


class ImageConfig(Section):
    """Which source images are accepted, and what is stored of them."""

    max_side: int = Field(
        512,
        ge=16,
        le=16_384,
        description="longest side of a stored image in pixels; more shows more detail and takes more disk",
    )
    resize: Literal["keep_aspect", "square"] = Field(
        "keep_aspect",
        description="'keep_aspect' keeps the proportions; 'square' squashes the image, as the paper's code does",
    )
    max_pixels: int = Field(
        50_000_000,
        ge=1,
        le=178_000_000,  # Pillow refuses more by itself
        description="largest source image in pixels; a larger one is rejected, before it is decoded",
    )
    max_bytes: int = Field(30_000_000, ge=1, description="largest source image in bytes; a larger one is rejected")
    jpeg_quality: int = Field(
        90, ge=1, le=100, description="JPEG quality of re-encoded images; more looks better and takes more disk"
    )

    @model_validator(mode="after")
    def _stored_images_are_accepted(self) -> ImageConfig:
        if self.resize == "square" and self.max_side**2 > self.max_pixels:
            raise ValueError(
                f"a square of max_side ({self.max_side}) has {self.max_side**2:,} pixels, more than max_pixels "
                f"({self.max_pixels:,}): raise max_pixels or lower max_side"
            )
        return self
