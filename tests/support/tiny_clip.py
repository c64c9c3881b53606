"""A tiny CLIP model on disk, as a local configuration and safetensors."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def write_clip(
    folder: Path,
    name: str = "small",
    seed: int = 1,
    architecture: dict[str, Any] = ARCHITECTURE,
    preprocessing: dict[str, Any] | None = None,
) -> tuple[dict[str, str], open_clip.CLIP]:
    """Writes `name`.json and `name`.safetensors. Returns the section `clip` of a configuration, and the model."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {"model_cfg": architecture, "preprocess_cfg": preprocessing} if preprocessing else architecture
    (folder / f"{name}.json").write_text(json.dumps(data))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(**architecture).eval()
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / f"{name}.safetensors")
    return {"model": str(folder / f"{name}.json"), "pretrained": str(folder / f"{name}.safetensors")}, model
