"""Live items with random vectors and memory, for tests that need no model."""

from __future__ import annotations

import numpy as np
from support.tiny import png

from comem_ray.config import ImageConfig
from comem_ray.knowledge.live.items import LiveItem, Upload, make_item

CLIP, ENCODER = "clip of the test", "encoder of the test"
LIMITS = ImageConfig()


def upload(i: int, **changes) -> Upload:
    """Upload number `i`, in one of three languages."""
    fields = {"title": f"Live {i}", "text": f"description number {i}", "language": ["en", "de", "es"][i % 3]}
    return Upload(**{"image": png(5_000 + i), "page_url": f"https://example.org/{i}", **fields, **changes})


def rounded(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., C) of length 1, rounded to float16 as shards are, as float32."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16).astype(np.float32)


def live_item(i: int, item_id: str | None = None, width: int = 24, **changes) -> LiveItem:
    """Live item number `i`."""
    rng = np.random.default_rng(i)
    vectors = {kind: rounded(rng.standard_normal(width)) for kind in ("image", "text")}
    memory = rng.integers(-(2**14), 2**14, (8, 16)).astype(np.int16)
    return LiveItem(make_item(upload(i, **changes), LIMITS, item_id), vectors, memory, CLIP, ENCODER)
