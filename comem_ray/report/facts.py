"""What was evaluated, as a table: names, sizes and digests, without dates or paths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from comem_ray.artifacts import Manifest, fingerprint
from comem_ray.config import Config
from comem_ray.evaluation.figures import MemoryStoreSize
from comem_ray.memory_store import store_bytes
from comem_ray.report.page import Table
from comem_ray.tasks.example import Example

DIGITS = 16  # hex digits of a digest


def facts(
    config: Config,
    questions: Sequence[Example],
    predictions: Sequence[Mapping[str, Any]],
    manifest: Manifest,
    items: int,
) -> Table:
    """`manifest` is that of the evaluation, `items` the number of items in the knowledge base."""
    languages = ", ".join(sorted({q.language for q in questions}))
    images = sum((q.image is not None or q.image_at is not None) for q in questions)
    rows = {
        "run": config.name,
        "seed": str(config.seed),
        "questions": f"{len(questions):,} ({images:,} with an image; languages: {languages})",
        "language model": f"{_name(config.backbone.model)} ({config.backbone.precision})",
        "memory encoder": _adapter(config),
        "knowledge base": f"{items:,} items",
        **_store(config),
        "retriever": f"{_name(config.clip.model)}, by {config.retrieval.by}, {_language(config.retrieval.language)}",
        "decoding": _decoding(config),
        **{f"digest of the {name}": code[:DIGITS] for name, code in _digests(questions, predictions, manifest)},
    }
    note = "A digest is the start of a SHA-256. Reports with the same digest have the same questions, model or answers."
    return Table("The run", [], [list(row) for row in rows.items()], note)


def _adapter(config: Config) -> str:
    if config.adapter.path is None:
        return f"not trained: random weights of seed {config.adapter.seed}"
    return _name(config.adapter.path)


def _name(model: str) -> str:
    """The model as the configuration has it; of an absolute path its last part, the same on every machine."""
    return Path(model).name if Path(model).is_absolute() else model


def _store(config: Config) -> dict[str, str]:
    folder = config.folder("memory")
    if not (folder / "manifest.json").exists():
        return {}
    store = MemoryStoreSize.of(store_bytes(folder))
    size = f"{store.bytes / 1e6:,.1f} MB for {store.items:,} items, {config.adapter.queries} vectors each"
    return {"memory store": size}


def _language(language: str | None) -> str:
    return f"items in {language!r}" if language else "items in all languages"


def _decoding(config: Config) -> str:
    settings = config.reasoner
    method = f"temperature {settings.temperature}, top_p {settings.top_p}" if settings.temperature else "greedy"
    if settings.repetition_penalty != 1:
        method += f", repetition_penalty {settings.repetition_penalty}"
    return f"{method}, at most {settings.max_new_tokens} tokens"


def _image_mark(question: Example) -> str:
    """A text that changes with the image, without reading an image that is still in its file."""
    at = question.image_at
    return at.mark if at is not None else hashlib.sha256(question.image or b"").hexdigest()


def _digests(
    questions: Sequence[Example], predictions: Sequence[Mapping[str, Any]], manifest: Manifest
) -> Iterable[tuple[str, str]]:
    """Name and digest of each thing that two reports may share."""
    yield "questions", fingerprint([[q.data_id, q.question, q.rule, q.gold, _image_mark(q)] for q in questions])
    for name, value in manifest.identity.get("encoder", {}).items():
        if name in ("backbone", "adapter"):
            yield name, value if isinstance(value, str) else fingerprint(value)
    yield "settings", fingerprint(manifest.identity)
    yield "answers", fingerprint([[r["data_id"], r["arm"], r["prediction"], r["score"]] for r in predictions])
