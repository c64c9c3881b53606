"""The sections `api` (limits of the HTTP endpoint, who may call it) and `live` (knowledge added over HTTP)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from comem_ray.config.base import Section

Host = Annotated[str, Field(min_length=1, pattern=r"^[^/\s]+$")]
Origin = Annotated[str, Field(pattern=r"^https?://[^/\s]+$")]


class ApiConfig(Section):
    """Limits of the HTTP API. A request beyond a limit is answered with a 4xx status."""

    max_body_bytes: int = Field(20_000_000, ge=1_000, description="largest request body in bytes")
    max_image_pixels: int = Field(50_000_000, ge=1, le=178_000_000, description="largest image of a question in pixels")
    max_images: int = Field(4, ge=1, description="most images that one chat request may have")
    max_question_chars: int = Field(2_000, ge=1, description="longest question in characters")
    max_chat_chars: int = Field(20_000, ge=1, description="longest text of all messages of a chat in characters")
    max_top_k: int = Field(50, ge=1, description="most items that one question may request")
    max_new_tokens: int = Field(1_000, ge=1, description="longest answer in tokens that one question may request")
    max_batch: int = Field(
        8, ge=1, description="questions of different users decoded together; more is faster and needs more memory"
    )
    max_cache_tokens: int = Field(
        40_000,
        ge=1,
        description="tokens that the key-value cache of the running answers may hold, padding included (57 KB per "
        "token at 7B); further questions wait",
    )
    max_waiting: int = Field(
        64, ge=1, description="questions that wait for one reasoner; more are answered 429 with Retry-After"
    )
    default_timeout_s: float = Field(
        300, gt=0, description="seconds after which an answer is given up, for a request that names no timeout"
    )
    max_timeout_s: float = Field(3_600, gt=0, description="longest timeout in seconds that one request may name")
    body_timeout_s: float = Field(
        10, gt=0, description="seconds in which the headers, and then the whole body, of a request must arrive"
    )
    max_unfinished_bodies: int = Field(
        64,
        ge=1,
        description="requests per client address whose body is still arriving; one more ends the oldest with 408",
    )
    max_open_requests: int = Field(
        512,
        ge=1,
        description="requests under way per ingress replica, and again as many whose body is still arriving; more are "
        "answered 429 with Retry-After (keep max_ongoing_requests of the Ingress above twice this number)",
    )
    keys_file: str | None = Field(
        None,
        min_length=1,
        description="file of API keys, one per line as name:key or key; with keys (here or in COMEM_API_KEYS), every "
        "path but the health checks wants one, and the service may listen beyond this machine",
    )
    requests_per_minute: int | None = Field(
        None,
        ge=1,
        description="requests that one key (without keys: one address) may make per minute and ingress replica; null: "
        "any number",
    )
    max_open_per_key: int = Field(256, ge=1, description="requests under way of one key (without keys: of one address)")
    allowed_hosts: list[Host] = Field(
        ["localhost", "127.0.0.1", "::1"],
        description="names in the Host header that are answered where no keys are set, against DNS rebinding; '*': any",
    )
    cors_origins: list[Origin] = Field(
        [], description="origins (https://example.org) whose pages may call the API from a browser; none by default"
    )
    fetch_hosts: list[Host] = Field(
        [],
        description="hosts (example.org, or with a port) that images of a request may be fetched from, over https; "
        "none by default: send the image",
    )
    log_questions: bool = Field(False, description="true writes the text of questions and answers into the log")


class LiveConfig(Section):
    """Knowledge that is added, replaced and deleted while the service runs."""

    enabled: bool = Field(True, description="false makes the knowledge base read-only over HTTP")
    max_items_per_request: int = Field(100, ge=1, description="most items that one request may add")
    compact_at: int = Field(
        10_000,
        ge=1,
        description="changes after which jobs.compact should fold them into shards; the service says so in its log and "
        "metrics",
    )
    max_changes: int = Field(
        50_000, ge=1, description="changes that are not folded yet; further ones are answered 507 until jobs.compact"
    )
