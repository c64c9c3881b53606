"""The shapes of released backbones, for estimates and benchmarks without a checkpoint.

Source: the released configurations. Qwen2-VL-7B has the language model of Qwen2.5-VL-7B and a simpler vision tower.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig, Qwen2VLConfig

from comem_ray.home import resolve
from comem_ray.model.checkpoint import checkpoint_config, checkpoint_folder

_TEXT_7B: dict[str, Any] = {
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
TEXT = {"Qwen/Qwen2.5-VL-7B-Instruct": _TEXT_7B, "Qwen/Qwen2-VL-7B-Instruct": _TEXT_7B}
VISION: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "depth": 32,
        "hidden_size": 1280,
        "num_heads": 16,
        "intermediate_size": 3420,
        "out_hidden_size": 3584,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
    "Qwen/Qwen2-VL-7B-Instruct": {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "num_heads": 16, "mlp_ratio": 4},
}


def empty_backbone(name: str) -> Any:
    """The stock model of a checkpoint on the meta device: shapes without weights, at any size.

    See `backbone_config` for the names. Raises ConfigError if no configuration can be loaded.
    """
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(backbone_config(name)).eval().requires_grad_(False)


def backbone_config(name: str) -> Any:
    """A checkpoint's configuration: of its folder, this table or the hub. Raises ConfigError if there is none,
    ArtifactError if it is damaged.
    """
    if resolve(name).is_dir() or name not in TEXT:
        return checkpoint_config(checkpoint_folder(name))
    config_class = Qwen2_5_VLConfig if "2.5" in name else Qwen2VLConfig
    return config_class(text_config=TEXT[name], vision_config=VISION[name], tie_word_embeddings=False)
