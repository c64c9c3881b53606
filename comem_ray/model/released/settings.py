"""The configuration that runs an imported adapter as its authors ran it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from comem_ray.artifacts import write_atomic
from comem_ray.config import Config

_HEAD = """\
# Written by `comem import-checkpoint`: the adapter of {source}, run as its authors' code runs it.
# Theirs are: the question's image through the encoder's vision tower, the best item next to the question, item images
# squashed to 512 x 512, no further limit of pixels (324 tokens per item), 10 items, and the decoding below.
# Yours to set: root, ingest.sources, and the workers. Relative paths are below $COMEM_HOME.
"""


def authors_settings(name: str, backbone: str, adapter: Path) -> dict[str, Any]:
    """The fields of the configuration; all others have their defaults. `adapter` is an absolute path."""
    return {
        "name": name,
        "root": name,
        "ingest": {
            "sources": [{"path": "wit/wit_v1.train.all-0000*-of-00010.tsv.gz"}],
            "images": {"max_side": 512, "resize": "square"},
            "fetch": {"enabled": True},
        },
        "clip": {"model": "ViT-L-14", "pretrained": "openai"},
        "retrieval": {"top_k": 10, "by": "image"},
        "backbone": {
            "model": backbone,
            "precision": "auto",
            "item_pixels": {"min": None, "max": None},
            "question_pixels": {"min": None, "max": None},
        },
        "adapter": {"path": str(adapter)},
        "reasoner": {
            "item_order": "best_last",
            "question_vision": "adapter",
            "language_model": "auto",
            "max_new_tokens": 1000,
            "temperature": 0.1,
            "top_p": 0.001,
            "repetition_penalty": 1.05,
        },
    }


def write_settings(path: Path, source: str, settings: dict[str, Any]) -> None:
    """Writes the configuration, which is valid."""
    Config.model_validate(settings)
    text = _HEAD.format(source=source) + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))
