"""The report of one or several evaluations, `report.html`: what was evaluated, the figures, a gallery of questions.

It is made only of what a finished evaluation left on disk, so a rerun writes the same page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comem_ray.artifacts import Manifest, load_manifest
from comem_ray.config import Config, EvaluationConfig
from comem_ray.evaluation.figures import EvaluationFigures
from comem_ray.evaluation.predictions import STAGE, read_predictions
from comem_ray.knowledge.items import ItemStore
from comem_ray.prompts import MODES
from comem_ray.report.cards import CardBuilder
from comem_ray.report.charts import charts
from comem_ray.report.facts import facts
from comem_ray.report.gallery import gallery
from comem_ray.report.page import write_page
from comem_ray.report.tables import group_tables, headline, in_order, tables, tiles
from comem_ray.tasks.example import Example
from comem_ray.tasks.images import ImageReader


@dataclass(frozen=True)
class FinishedEvaluation:
    """A finished evaluation: its questions, its predictions (rows of PREDICTION_SCHEMA) and its figures."""

    config: Config
    evaluation: EvaluationConfig
    questions: Sequence[Example]
    predictions: Sequence[dict[str, Any]]
    figures: EvaluationFigures
    manifest: Manifest


def read_evaluation(
    config: Config,
    evaluation: EvaluationConfig,
    questions: Sequence[Example],
    predictions: Sequence[dict[str, Any]] | None = None,
) -> FinishedEvaluation:
    """The evaluation of `questions` under `config`; `predictions` are read from disk unless they are given.

    Raises ArtifactError if the evaluation is unfinished.
    """
    folder = config.folder("evaluation")
    manifest = load_manifest(folder, STAGE)
    figures = EvaluationFigures.from_json(json.loads((folder / "report.json").read_text(encoding="utf-8")))
    rows = read_predictions(folder, manifest) if predictions is None else predictions
    return FinishedEvaluation(config, evaluation, questions, rows, figures, manifest)


def write_report(path: Path, title: str, evaluations: Sequence[FinishedEvaluation]) -> Path:
    """Writes the page; returns its path. The evaluations share the gallery's limits of questions and megabytes."""
    contexts = [_context(e, number, len(evaluations)) for number, e in enumerate(evaluations, start=1)]
    return write_page(path, "evaluation.html", {"title": title, "evaluations": contexts})


def _context(evaluation: FinishedEvaluation, number: int, count: int) -> dict[str, Any]:
    """What the template shows of one evaluation."""
    e, figures, anchor = evaluation, evaluation.figures, f"evaluation-{number}"
    arms, items = in_order(figures.arms), ItemStore(e.config.folder("items"))
    limits = e.evaluation.gallery
    limits = limits.model_copy(update={"questions": limits.questions // count, "max_mb": limits.max_mb / count})
    builder = CardBuilder(list(arms), items, ImageReader())
    return {
        "anchor": anchor,
        "name": "Summary" if count == 1 else e.config.name,
        "headline": headline(figures, arms),
        "tiles": tiles(arms),
        "facts": facts(e.config, e.questions, e.predictions, e.manifest, len(items)),
        "plots": charts(arms),
        "tables": tables(figures, arms),
        "groups": group_tables(arms),
        "modes": [mode for mode in MODES if any(arm.mode == mode for arm in arms.values())],
        "arm_names": list(arms),
        "gallery": gallery(e.questions, e.predictions, builder, limits, anchor),
    }
