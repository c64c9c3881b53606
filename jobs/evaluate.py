"""Asks the questions of tasks in every mode with every k, scores the answers, and reports.

    ray job submit --working-dir . -- python -m jobs.evaluate --config configs/qwen2_5_vl_7b.yaml
    (also: --k 1,3,10 --knowledge-size 1000,all)

Units of questions run on an actor pool: retrieval once per question and knowledge size, then every arm (mode, k, size).
A unit leaves its predictions as one parquet file in evaluation/ under the run's root. The times are measured apart from
that, one question at a time, by one actor. At the end report.json, report.md and report.html are made of these files,
and predictions/<source>/<arm>.jsonl for `comem score`. A rerun keeps what is finished and ends with the same
predictions. docs/evaluation.md says which files of which tasks are read, and how answers are scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from comem_ray.artifacts import StageFolder, fingerprint, write_atomic, write_json, write_parquet
from comem_ray.config import Config, ConfigError, EvaluationConfig, resolve
from comem_ray.evaluation import official
from comem_ray.evaluation.aggregation import compute_figures
from comem_ray.evaluation.evaluator import Evaluator
from comem_ray.evaluation.figures import EvaluationFigures, Faults, MemoryStoreSize
from comem_ray.evaluation.gold_items import items_of
from comem_ray.evaluation.predictions import (
    PREDICTION_SCHEMA,
    STAGE,
    TIMES,
    TIMES_SCHEMA,
    read_predictions,
    read_times,
    write_faults,
    write_prediction_files,
)
from comem_ray.evaluation.questions import BAD_GOLD, read_questions, unpacked, with_image
from comem_ray.evaluation.sources import SourceQuestions, read_source
from comem_ray.evaluation.units import evaluation_identity, evaluation_units
from comem_ray.memory_store import store_bytes
from comem_ray.report.evaluation import FinishedEvaluation, read_evaluation, write_report
from comem_ray.report.markdown import markdown
from comem_ray.tasks.example import Example
from comem_ray.tasks.files import RejectedRow
from comem_ray.tasks.images import ImageReader
from comem_ray.tasks.rules.own import check_rules, import_rules
from comem_ray.tasks.rules.scoring import OwnRules
from comem_ray.tasks.task import check_gold
from jobs.common import Summary, main, run_units

FAULTS = "faults.jsonl"
FLAGS = {"k": "evaluation.k", "knowledge-size": "evaluation.knowledge_sizes"}


def run(config: Config) -> Summary:
    """Writes evaluation/ under the run's root. Raises ConfigError without a section `evaluation`, or for its files."""
    evaluation = section(config)
    sources, questions = questions_of(config)
    right = sorted({item_id for question in questions for item_id in question.gold_items})
    stage = StageFolder(config.folder("evaluation"), STAGE, evaluation_identity(config, evaluation))
    units = evaluation_units(config, evaluation, questions, right)
    inputs = {unit["unit"]: unit["inputs"] for unit in units}
    kept = stage.finished(inputs)
    todo = [unit for unit in units if unit["unit"] not in kept]
    arguments = (config, stage, right)
    run_units([u for u in todo if u["unit"] != TIMES], EvaluateUnit, arguments, evaluation.workers, STAGE)
    run_units([u for u in todo if u["unit"] == TIMES], EvaluateUnit, arguments, evaluation.workers, TIMES)
    manifest = stage.close(inputs)
    predictions, times = read_predictions(stage.path, manifest), read_times(stage.path, manifest)
    write_prediction_files(config.folder("predictions"), questions, predictions)
    figures = _figures(config, sources, questions, predictions, times)
    _write_reports(config, figures, questions, predictions)
    faults = write_faults(stage.path / FAULTS, predictions)
    left_out = sum(source.left_out for source in sources)
    return _summary(figures, faults, stage.path, len(kept), left_out)


def section(config: Config) -> EvaluationConfig:
    """The section `evaluation`. Raises ConfigError if it is missing, or names nothing to ask."""
    if config.evaluation is None:
        raise ConfigError("field evaluation: missing; it says which questions to ask, and how")
    if config.evaluation.questions is None and not config.evaluation.sources:
        raise ConfigError("field evaluation: neither questions nor sources: name what to ask")
    return config.evaluation


def questions_of(config: Config) -> tuple[list[SourceQuestions], list[Example]]:
    """The sources, and all questions, with the items that hold their answers where the knowledge base says so.

    Raises ConfigError for a file that is not there or of another kind, and for an unknown scoring rule.
    """
    evaluation, own_rules = section(config), import_rules(config.scoring_rules)
    plain = read_questions(resolve(evaluation.questions))[: evaluation.limit] if evaluation.questions else []
    check_rules("evaluation.questions", {question.rule for question in plain}, own_rules)
    plain = [_with_usable_gold(question, own_rules) for question in plain]
    sources = [read_source(source, own_rules) for source in evaluation.sources]
    entities = {entity for source in sources for question in source.questions for entity in question.entities}
    items = items_of(config.folder("items"), entities)
    for source in sources:
        source.questions = [
            replace(q, gold_items=list(dict.fromkeys(item for entity in q.entities for item in items.get(entity, []))))
            for q in source.questions
        ]
    return sources, [*plain, *(question for source in sources for question in source.questions)]


def _with_usable_gold(question: Example, own_rules: OwnRules) -> Example:
    """The question, with a fault where its rule cannot use its gold: it is not asked, and counts as wrong."""
    try:
        check_gold(question.rule, question.gold, own_rules)
    except RejectedRow:
        return replace(question, fault=question.fault or BAD_GOLD)
    return question


def finished_evaluation(config: Config) -> FinishedEvaluation:
    """A finished evaluation, read from disk. Raises ArtifactError if it is unfinished."""
    evaluation = section(config)
    sources, questions = questions_of(config)
    finished = read_evaluation(config, evaluation, questions)
    official.score_sources(evaluation.sources, sources, finished.predictions)  # writes scores that no shard can hold
    return finished


def _figures(
    config: Config,
    sources: Sequence[SourceQuestions],
    questions: Sequence[Example],
    predictions: Sequence[dict[str, Any]],
    times: Sequence[dict[str, Any]],
) -> EvaluationFigures:
    """The content of report.json."""
    evaluation = section(config)
    # First the official figures: they write the scores that tasks give to all answers together into the rows.
    official_figures = official.score_sources(evaluation.sources, sources, predictions)
    has_memory = "memory" in evaluation.modes
    return replace(
        compute_figures(questions, predictions, times, evaluation.k),
        sources=official_figures,
        missing_images=Faults(**official.missing_images(predictions)),
        rejected=Faults(**official.row_counts(sources, predictions)["rejected"]),
        memory_store=MemoryStoreSize.of(store_bytes(config.folder("memory"))) if has_memory else None,
    )


def _write_reports(
    config: Config,
    figures: EvaluationFigures,
    questions: Sequence[Example],
    predictions: Sequence[dict[str, Any]],
) -> None:
    """Writes report.json, report.md and report.html."""
    folder, text = config.folder("evaluation"), markdown(figures)
    write_json(folder / "report.json", figures.to_json())
    write_atomic(folder / "report.md", lambda path: path.write_text(text, encoding="utf-8"))
    evaluation = read_evaluation(config, section(config), questions, predictions)
    write_report(folder / "report.html", f"Evaluation of {config.name}", [evaluation])


def _summary(figures: EvaluationFigures, faults: Mapping[str, int], folder: Path, kept: int, left_out: int) -> Summary:
    counts = {
        "missing images": figures.missing_images.count,
        "rejected rows": figures.rejected.count,
        "left out": left_out,
    }
    listed = {"list of faults": str(folder / FAULTS)} if faults else {}
    reasons = {f"fault.{fault}": count for fault, count in faults.items()}
    scores = {f"{name}, %": arm.share.score for name, arm in figures.arms.items()}
    report = str(folder / "report.md")
    return {"questions": figures.questions, "kept": kept, **counts, **reasons, **listed, **scores, "report": report}


class EvaluateUnit:
    """An actor that writes the predictions of one unit of questions per call.

    `right` are the ids of the right items of all questions.
    """

    def __init__(self, config: Config, stage: StageFolder, right: Sequence[str]):
        evaluation = section(config)
        torch.set_num_threads(evaluation.workers.thread_count)
        self.stage, self.seed, self.max_pixels = stage, config.seed, config.ingest.images.max_pixels
        self.images = ImageReader()
        self.evaluator = Evaluator(config, evaluation, "cuda" if evaluation.workers.gpus else "cpu", right)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        unit, inputs, text = (str(batch[name][0]) for name in ("unit", "inputs", "questions"))
        questions = [with_image(question, self.images, self.max_pixels) for question in unpacked(text)]
        torch.manual_seed(int(fingerprint([self.seed, unit])[:8], 16))  # counts where answers are sampled
        if unit == TIMES:
            table = pa.Table.from_pylist(self.evaluator.times(questions), TIMES_SCHEMA)
        else:
            table = pa.Table.from_pylist(self.evaluator.predictions(questions), PREDICTION_SCHEMA)
        write_parquet(self.stage.path / f"{unit}.parquet", table)
        self.stage.commit(unit, inputs, {f"{unit}.parquet": len(table)}, {"rows": len(table)})
        return {"unit": [unit]}


if __name__ == "__main__":
    main(STAGE, run, __doc__ or "", lists=FLAGS)
