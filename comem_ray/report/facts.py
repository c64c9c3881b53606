"""What was evaluated, as a table: names, sizes and digests, without dates or paths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from comem_ray.artifacts import Manifest, fingerprint
from comem_ray.config import Config
from comem_ray.evaluation.questions import EvaluationQuestion
from comem_ray.memory_store import store_bytes
from comem_ray.report.page import Table

_SHOWN = 16  # hex digits of a digest
_FIGURES = {"arms", "recall", "memory_against_rag", "questions"}  # of report.json, which have tables of their own


def facts(
    config: Config,
    questions: Sequence[EvaluationQuestion],
    predictions: Sequence[Mapping[str, Any]],
    found: Mapping[str, Any],
    manifest: Manifest,
    items: int,
) -> Table:
    """`items` is the size of the knowledge base."""
    languages = ", ".join(sorted({q.language for q in questions}))
    images = sum((q.image is not None or q.image_at is not None) for q in questions)
    said = {
        "run": config.name,
        "seed": config.seed,
        "questions": f"{len(questions):,} ({images:,} with an image; languages: {languages})",
        "language model": f"{_name(config.backbone.model)} ({config.backbone.precision})",
        "memory encoder": _adapter(config),
        "knowledge base": f"{items:,} items",
        **_store(config),
        "retriever": f"{_name(config.clip.model)}, by {config.retrieval.by}, {_language(config.retrieval.language)}",
        "decoding": _decoding(config),
        **{name.replace("_", " "): value for name, value in found.items() if _is_fact(name, value)},
        **{f"digest of the {name}": code[:_SHOWN] for name, code in _digests(questions, predictions, manifest)},
    }
    note = "A digest is the beginning of a SHA-256: two reports that show the same one have the same."
    rows = [[name, f"{value:,}" if isinstance(value, int) else str(value)] for name, value in said.items()]
    return Table("The run", [], rows, note)


def _is_fact(name: str, value: Any) -> bool:
    return name not in _FIGURES and isinstance(value, str | int | float)


def _adapter(config: Config) -> str:
    if config.adapter.path is None:
        return f"not trained: random weights of seed {config.adapter.seed}"
    return _name(config.adapter.path)


def _name(model: str) -> str:
    """The model as the configuration has it; of an absolute path, what every machine would call it."""
    return Path(model).name if Path(model).is_absolute() else model


def _store(config: Config) -> dict[str, str]:
    folder = config.folder("memory")
    if not (folder / "manifest.json").exists():
        return {}
    held = store_bytes(folder)
    size, items = held["bytes"] / 1e6, held["items"]
    return {"memory store": f"{size:,.1f} MB for {items:,} items, {config.adapter.queries} vectors each"}


def _language(language: str | None) -> str:
    return f"items in {language!r}" if language else "items in all languages"


def _decoding(config: Config) -> str:
    settings = config.reasoner
    how = f"temperature {settings.temperature}, top_p {settings.top_p}" if settings.temperature else "greedy"
    return f"{how}, at most {settings.max_new_tokens} tokens"


def _image_mark(question: EvaluationQuestion) -> str:
    """Changes with the image, which may still lie where it is."""
    at = question.image_at
    return at.mark if at is not None else hashlib.sha256(question.image or b"").hexdigest()


def _digests(
    questions: Sequence[EvaluationQuestion], predictions: Sequence[Mapping[str, Any]], manifest: Manifest
) -> Iterable[tuple[str, str]]:
    asked = [[q.data_id, q.question, q.rule, q.gold, _image_mark(q)] for q in questions]
    yield "questions", fingerprint(asked)
    for name, value in manifest.identity.get("encoder", {}).items():
        if name in ("backbone", "adapter"):
            yield name, value if isinstance(value, str) else fingerprint(value)
    yield "settings", fingerprint(manifest.identity)
    yield "answers", fingerprint([[r["data_id"], r["arm"], r["prediction"], r["score"]] for r in predictions])
