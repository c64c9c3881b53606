"""The report of an evaluation, `report.html`: what was evaluated, its figures, and a gallery of questions.

Made of what a finished evaluation left on disk, and of nothing else: a rerun writes the same page. A part is one
evaluation; a page may hold several, one below the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from comem_ray.artifacts import Manifest, load_manifest
from comem_ray.config import Config, EvaluationConfig
from comem_ray.evaluation.questions import EvaluationQuestion
from comem_ray.knowledge.items import ItemStore
from comem_ray.prompts import MODES
from comem_ray.report.charts import charts
from comem_ray.report.facts import facts
from comem_ray.report.gallery import Sights, gallery
from comem_ray.report.page import write_page
from comem_ray.report.tables import group_tables, in_order, lead, tables, tiles
from comem_ray.tasks.images import ImageReader

STAGE = "evaluate"


@dataclass(frozen=True)
class Part:
    """A finished evaluation: its questions, its predictions and the figures of its report.json."""

    config: Config
    evaluation: EvaluationConfig
    questions: Sequence[EvaluationQuestion]
    predictions: Sequence[dict[str, Any]]
    found: Mapping[str, Any]
    manifest: Manifest


def read_part(
    config: Config,
    evaluation: EvaluationConfig,
    questions: Sequence[EvaluationQuestion],
    predictions: Sequence[dict[str, Any]] | None = None,
) -> Part:
    """The evaluation of `questions` under `config`; `predictions` are its rows where they are at hand.

    Raises ArtifactError where it is unfinished.
    """
    folder = config.folder("evaluation")
    manifest = load_manifest(folder, STAGE)
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return Part(config, evaluation, questions, predictions or _predictions(folder, manifest), found, manifest)


def _predictions(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    files = [folder / shard.name for shard in manifest.shards(".parquet")]
    return [row for f in files if "prediction" in pq.read_schema(f).names for row in pq.read_table(f).to_pylist()]


def write_report(path: Path, title: str, parts: Sequence[Part]) -> Path:
    """Writes the page. The parts share the gallery's questions and megabytes."""
    contexts = [_context(part, number, len(parts)) for number, part in enumerate(parts, start=1)]
    return write_page(path, "evaluation.html", {"title": title, "parts": contexts})


def _context(part: Part, number: int, count: int) -> dict[str, Any]:
    arms, settings = in_order(part.found["arms"]), part.evaluation.gallery
    share = settings.model_copy(update={"questions": settings.questions // count, "max_mb": settings.max_mb / count})
    store, anchor = ItemStore(part.config.folder("items")), f"part-{number}"
    return {
        "anchor": anchor,
        "name": "Summary" if count == 1 else part.config.name,
        "lead": lead(part.found, arms),
        "tiles": tiles(arms),
        "facts": facts(part.config, part.questions, part.predictions, part.found, part.manifest, len(store)),
        "plots": charts(arms),
        "tables": tables(part.found, arms),
        "groups": group_tables(arms),
        "modes": [mode for mode in MODES if any(arm["mode"] == mode for arm in arms.values())],
        "arm_names": list(arms),
        "gallery": gallery(part.questions, part.predictions, list(arms), Sights(store, ImageReader()), share, anchor),
    }
