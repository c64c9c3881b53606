"""The section `api`: limits of the HTTP endpoint."""

from __future__ import annotations

from pydantic import Field

from comem_ray.config.base import Section


class ApiConfig(Section):
    """Limits of the HTTP API; what exceeds them is answered with a 4xx."""

    max_body_bytes: int = Field(20_000_000, ge=1_000, description="bytes of a request")
    max_image_pixels: int = Field(50_000_000, ge=1, description="pixels of a question's image")
    max_question_chars: int = Field(2_000, ge=1, description="characters of a question")
    max_top_k: int = Field(50, ge=1, description="items a question may ask for")
    max_new_tokens: int = Field(1_000, ge=1, description="tokens an answer may ask for")
    max_batch: int = Field(8, ge=1, description="questions of different users decoded together")
