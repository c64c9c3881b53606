"""Asks the questions of benchmarks in every mode with every k, scores the answers, and reports.

    ray job submit --working-dir . -- python -m jobs.evaluate --config configs/demo.yaml
    (also: --k 1,3,10 --knowledge-size 1000,all)

Units of questions on an actor pool: retrieval once a question and knowledge size, then all arms (mode, k, size). Each
leaves its predictions as a parquet file in evaluation/ below the run's root. report.json, report.md and report.html are
made of them at the end, and predictions/<source>/<arm>.jsonl for `comem score`, whose official figures are in the
report. A rerun keeps what is finished and ends with the same predictions. Times are taken apart, one question at a
time, by one actor. docs/evaluation.md says which files of which benchmarks, and what counts how.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from comem_ray.artifacts import StageFolder, fingerprint, load_manifest, write_atomic, write_json, write_parquet
from comem_ray.config import Config, ConfigError, EvaluationConfig, resolve
from comem_ray.evaluation import official
from comem_ray.evaluation.evaluator import Evaluator
from comem_ray.evaluation.figures import figures, markdown
from comem_ray.evaluation.gold_items import items_of
from comem_ray.evaluation.questions import packed, read_questions, unpacked, with_image
from comem_ray.evaluation.sources import SourceQuestions, read_source
from comem_ray.memory_store import store_bytes
from comem_ray.model.adapter import encoder_identity
from comem_ray.report.evaluation import STAGE, Part, read_part, write_report
from comem_ray.retrieval.index import STAGE as INDEX
from comem_ray.tasks.example import Example
from comem_ray.tasks.images import ImageReader
from comem_ray.tasks.rules.own import check_rules, import_rules
from jobs.common import Summary, main, run_units

TIMES = "times"
PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("data_id", pa.string(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("mode", pa.string(), nullable=False),
        pa.field("k", pa.int32(), nullable=False),
        pa.field("gold_position", pa.int32()),  # where the right item was put, from 1; null: where retrieval had it
        pa.field("knowledge", pa.int32(), nullable=False),  # items that retrieval saw; 0 in mode none
        pa.field("prediction", pa.string(), nullable=False),
        pa.field("fault", pa.string()),  # why there is none: "image_missing", "prompt_too_long", ...; null: there is
        pa.field("score", pa.float64()),  # 0..1; null where its benchmark judges answers together (the report has it)
        pa.field("rank", pa.int32()),  # of the right item in retrieval, from 1; 0 not found; null not known
        pa.field("item_ids", pa.list_(pa.string()), nullable=False),  # before the question, best first
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("memory_vectors", pa.int32(), nullable=False),
        pa.field("completion_tokens", pa.int32(), nullable=False),
    ]
)
TIMES_SCHEMA = pa.schema(
    [
        pa.field("data_id", pa.string(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("first_token_ms", pa.float64(), nullable=False),
        pa.field("answer_ms", pa.float64(), nullable=False),
    ]
)


def run(config: Config) -> Summary:
    """Writes evaluation/ under the run's root. Raises ConfigError without a section `evaluation`, or for its files."""
    evaluation = section(config)
    index = load_manifest(config.folder("index"), INDEX).fingerprint
    sources, questions = questions_of(config)
    right = sorted({item_id for question in questions for item_id in question.gold_items})
    stage = StageFolder(config.folder("evaluation"), STAGE, _identity(config, evaluation))
    # The right items change nothing where all items are searched.
    made_from = [index] if evaluation.knowledge_sizes == ["all"] else [index, right]
    units = list(_units(questions, evaluation, fingerprint(made_from)))
    inputs = {u["unit"]: u["inputs"] for u in units}
    kept = stage.finished(inputs)
    todo = [u for u in units if u["unit"] not in kept]
    arguments = (config, stage, right)
    run_units([u for u in todo if u["unit"] != TIMES], EvaluateUnit, arguments, evaluation.workers, STAGE)
    run_units([u for u in todo if u["unit"] == TIMES], EvaluateUnit, arguments, evaluation.workers, TIMES)
    stage.close(inputs)
    predictions, times = _rows(stage, list(inputs))
    _write_predictions(config, questions, predictions)
    official_figures = official.score_sources(evaluation.sources, sources, predictions)  # before all others: it scores
    found = {
        **figures(questions, predictions, times, evaluation.k),
        "sources": official_figures,
        "missing_images": official.missing_images(predictions),
        "rejected": official.row_counts(sources, predictions)["rejected"],
        "memory_store": store_bytes(config.folder("memory")) if "memory" in evaluation.modes else None,
    }
    write_json(stage.path / "report.json", found)
    text = "\n\n".join([markdown(found), official.markdown(found["sources"])]).rstrip()
    write_atomic(stage.path / "report.md", lambda p: p.write_text(text + "\n", encoding="utf-8") and None)
    write_report(stage.path / "report.html", f"Evaluation of {config.name}", [part(config, predictions)])
    scores = {f"{name}, %": arm["score"] for name, arm in found["arms"].items()}
    counts = {
        "missing images": found["missing_images"]["count"],
        "rejected rows": found["rejected"]["count"],
        "left out": sum(source.left_out for source in sources),
    }
    report = str(stage.path / "report.md")
    return {"questions": len(questions), "kept": len(kept), **counts, **scores, "report": report}


def questions_of(config: Config) -> tuple[list[SourceQuestions], list[Example]]:
    """The sources, and all questions, with the items that hold their answers where the knowledge base says so.

    Raises ConfigError for a file that is not there or of another kind, and for an unknown scoring rule.
    """
    evaluation, own_rules = section(config), import_rules(config.scoring_rules)
    plain = read_questions(resolve(evaluation.questions))[: evaluation.limit] if evaluation.questions else []
    check_rules("evaluation.questions", {question.rule for question in plain}, own_rules)
    sources = [read_source(source, own_rules) for source in evaluation.sources]
    entities = {entity for source in sources for question in source.questions for entity in question.entities}
    items = items_of(config.folder("items"), entities)
    for source in sources:
        source.questions = [
            replace(q, gold_items=list(dict.fromkeys(item for entity in q.entities for item in items.get(entity, []))))
            for q in source.questions
        ]
    return sources, [*plain, *(question for source in sources for question in source.questions)]


def part(config: Config, predictions: Sequence[dict[str, Any]] | None = None) -> Part:
    """What a finished evaluation says in report.html; its predictions are read where they are not given."""
    evaluation = section(config)
    sources, questions = questions_of(config)
    found = read_part(config, evaluation, questions, predictions)
    if predictions is None:
        official.score_sources(evaluation.sources, sources, found.predictions)  # scores that no shard can hold
    return found


def section(config: Config) -> EvaluationConfig:
    """The section `evaluation`. Raises ConfigError where there is none, or nothing to ask."""
    if config.evaluation is None:
        raise ConfigError("field evaluation: missing; it says which questions to ask, and how")
    if config.evaluation.questions is None and not config.evaluation.sources:
        raise ConfigError("field evaluation: neither questions nor sources: name what to ask")
    return config.evaluation


def _identity(config: Config, evaluation: EvaluationConfig) -> dict[str, Any]:
    return {
        "encoder": encoder_identity(config),
        "question_pixels": config.backbone.question_pixels.model_dump(),
        "reasoner": config.reasoner.model_dump(),
        "retrieval": config.retrieval.model_dump(exclude={"top_k"}),
        "evaluation": evaluation.model_dump(
            include={"modes", "k", "gold_positions", "knowledge_sizes", "items_language"}
        ),
        "scoring_rules": config.scoring_rules,
        "seed": config.seed,
    }


def _units(questions: Sequence[Example], evaluation: EvaluationConfig, made_from: str) -> Iterator[dict[str, Any]]:
    size = evaluation.questions_per_unit
    for number, start in enumerate(range(0, len(questions), size)):
        yield _unit(f"part-{number:06d}", questions[start : start + size], made_from)
    if timed := questions[: evaluation.timed]:
        yield _unit(TIMES, timed, made_from)


def _unit(name: str, questions: Sequence[Example], made_from: str) -> dict[str, Any]:
    elsewhere = [q.image_at and replace(q.image_at, file="") for q in questions]  # wherever the files lie
    digest = fingerprint(
        [made_from, packed([replace(q, image_at=a) for q, a in zip(questions, elsewhere, strict=True)])]
    )
    return {"unit": name, "inputs": digest, "questions": packed(questions)}


def _rows(stage: StageFolder, units: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Predictions and times."""
    tables = {unit: pq.read_table(stage.path / f"{unit}.parquet").to_pylist() for unit in units}
    return [row for unit, rows in tables.items() if unit != TIMES for row in rows], tables.get(TIMES, [])


def _write_predictions(config: Config, questions: Sequence[Example], rows: Sequence[dict[str, Any]]) -> None:
    """A folder a source, a file an arm, as `comem score` reads it: {"data_id", "prediction"} a line."""
    by_id = {question.data_id: question for question in questions}
    lines: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        question = by_id[row["data_id"]]
        line = json.dumps({"data_id": question.own_id, "prediction": row["prediction"]}, ensure_ascii=False)
        some = lines.setdefault((question.source, re.sub(r"\W+", "-", row["arm"])), [])
        some += [] if row["fault"] else [f"{line}\n"]
    for (source, name), some in lines.items():
        path, text = config.folder("predictions") / source / f"{name}.jsonl", "".join(some)
        write_atomic(path, lambda p, text=text: p.write_text(text, encoding="utf-8") and None)  # type: ignore[misc]


class EvaluateUnit:
    """An actor: the predictions of one unit of questions a call. `right` are the right items of all questions."""

    def __init__(self, config: Config, stage: StageFolder, right: Sequence[str]):
        evaluation = section(config)
        torch.set_num_threads(max(1, int(evaluation.workers.cpus)))
        self.stage, self.seed, self.max_pixels = stage, config.seed, config.api.max_image_pixels
        self.images = ImageReader()
        self.evaluator = Evaluator(config, evaluation, "cuda" if evaluation.workers.gpus else "cpu", right)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        unit, inputs, text = (batch[name][0] for name in ("unit", "inputs", "questions"))
        questions = [with_image(question, self.images, self.max_pixels) for question in unpacked(str(text))]
        torch.manual_seed(int(fingerprint([self.seed, str(unit)])[:8], 16))  # counts where answers are sampled
        timed = unit == TIMES
        rows = self.evaluator.times(questions) if timed else self.evaluator.predictions(questions)
        table = pa.Table.from_pylist(rows, TIMES_SCHEMA if timed else PREDICTION_SCHEMA)
        write_parquet(self.stage.path / f"{unit}.parquet", table)
        self.stage.commit(str(unit), str(inputs), {f"{unit}.parquet": len(table)}, {"rows": len(table)})
        return {"unit": [unit]}


FLAGS = {"k": "evaluation.k", "knowledge-size": "evaluation.knowledge_sizes"}

if __name__ == "__main__":
    main(STAGE, run, __doc__ or "", lists=FLAGS)
