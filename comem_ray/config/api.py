"""The section `api`: limits of the HTTP endpoint."""

from __future__ import annotations

from pydantic import Field

from comem_ray.config.base import Section


class ApiConfig(Section):
    """Limits of the HTTP API. A request beyond a limit is answered with a 4xx status."""

    max_body_bytes: int = Field(20_000_000, ge=1_000, description="largest request body in bytes")
    max_image_pixels: int = Field(50_000_000, ge=1, le=178_000_000, description="largest image of a question in pixels")
    max_question_chars: int = Field(2_000, ge=1, description="longest question in characters")
    max_top_k: int = Field(50, ge=1, description="most items that one question may request")
    max_new_tokens: int = Field(1_000, ge=1, description="longest answer in tokens that one question may request")
    max_batch: int = Field(
        8, ge=1, description="questions of different users decoded together; more is faster and needs more memory"
    )
