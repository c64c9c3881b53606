"""Small makers of test objects."""

import numpy as np
from PIL import Image

FAMILIES = ["qwen2_5_vl", "qwen2_vl"]


def picture(seed: int, width: int = 60, height: int = 44) -> Image.Image:
    """A seeded picture of noise blocks."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)
