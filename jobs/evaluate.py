"""Asks the questions of a benchmark in every mode with every k, scores the answers, and reports.

    ray job submit --working-dir . -- python -m jobs.evaluate --config configs/demo.yaml

Units of questions on an actor pool: retrieval once a question, then all arms (mode, k). Each leaves its predictions as
a parquet file in evaluation/ below the run's root; report.json and report.md are made of them at the end, and
predictions/<arm>.jsonl for `comem score`. A rerun keeps what is finished and ends with the same predictions. Times are
taken apart, one question at a time, by one actor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from comem_ray.artifacts import StageFolder, fingerprint, load_manifest, write_atomic, write_json, write_parquet
from comem_ray.config import Config, ConfigError, resolve
from comem_ray.config_evaluation import Evaluation
from comem_ray.evaluation.answering import Evaluator
from comem_ray.evaluation.questions import EvaluationQuestion, read_questions
from comem_ray.evaluation.tables import figures, markdown
from comem_ray.model.checkpoint import encoder_identity
from comem_ray.retrieval.index import STAGE as INDEX
from jobs.common import Summary, main, run_units

STAGE = "evaluate"
TIMES = "times"
PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("data_id", pa.string(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("mode", pa.string(), nullable=False),
        pa.field("k", pa.int32(), nullable=False),
        pa.field("place", pa.int32()),  # where the right item was put, from 1; null: where retrieval had it
        pa.field("prediction", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),  # 0..1
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
    """Writes evaluation/ under the run's root. Raises ConfigError without a section `evaluation`."""
    evaluation = section(config)
    questions = read_questions(resolve(evaluation.questions))[: evaluation.limit]
    index = load_manifest(config.folder("index"), INDEX).fingerprint
    stage = StageFolder(config.folder("evaluation"), STAGE, _identity(config, evaluation))
    units = list(_units(questions, evaluation, index))
    inputs = {u["unit"]: u["inputs"] for u in units}
    kept = stage.finished(inputs)
    todo = [u for u in units if u["unit"] not in kept]
    run_units([u for u in todo if u["unit"] != TIMES], EvaluateUnit, (config, stage), evaluation.workers, STAGE)
    run_units([u for u in todo if u["unit"] == TIMES], EvaluateUnit, (config, stage), evaluation.workers, TIMES)
    stage.close(inputs)
    predictions, times = _rows(stage, list(inputs))
    _write_predictions(config, predictions)
    found = figures(questions, predictions, times, evaluation.k)
    write_json(stage.path / "report.json", found)
    text = markdown(found)
    write_atomic(stage.path / "report.md", lambda p: p.write_text(text + "\n", encoding="utf-8") and None)
    scores = {f"{name}, %": arm["score"] for name, arm in found["arms"].items()}
    return {"questions": len(questions), "kept": len(kept), **scores, "report": str(stage.path / "report.md")}


def section(config: Config) -> Evaluation:
    """The section `evaluation`. Raises ConfigError where there is none."""
    if config.evaluation is None:
        raise ConfigError("field evaluation: missing; it says which questions to ask, and how")
    return config.evaluation


def _identity(config: Config, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "encoder": encoder_identity(config),
        "question_pixels": config.backbone.question_pixels.model_dump(),
        "reasoner": config.reasoner.model_dump(),
        "retrieval": config.retrieval.model_dump(exclude={"top_k"}),
        "evaluation": evaluation.model_dump(include={"modes", "k", "places"}),
        "seed": config.seed,
    }


def _units(questions: Sequence[EvaluationQuestion], evaluation: Evaluation, index: str) -> Iterator[dict[str, Any]]:
    size = evaluation.questions_per_unit
    for number, start in enumerate(range(0, len(questions), size)):
        yield _unit(f"part-{number:06d}", start, questions[start : start + size], index)
    if timed := questions[: evaluation.timed]:
        yield _unit(TIMES, 0, timed, index)


def _unit(name: str, start: int, questions: Sequence[EvaluationQuestion], index: str) -> dict[str, Any]:
    digest = fingerprint([index, [fingerprint({**asdict(q), "picture": (q.picture or b"").hex()}) for q in questions]])
    return {"unit": name, "inputs": digest, "start": start, "count": len(questions)}


def _rows(stage: StageFolder, units: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Predictions and times."""
    tables = {unit: pq.read_table(stage.path / f"{unit}.parquet").to_pylist() for unit in units}
    return [row for unit, rows in tables.items() if unit != TIMES for row in rows], tables.get(TIMES, [])


def _write_predictions(config: Config, rows: Sequence[dict[str, Any]]) -> None:
    """A file an arm, as `comem score` reads it: {"data_id", "prediction"} a line."""
    lines: dict[str, list[str]] = {}
    for row in rows:
        line = json.dumps({"data_id": row["data_id"], "prediction": row["prediction"]}, ensure_ascii=False)
        lines.setdefault(re.sub(r"\W+", "-", row["arm"]), []).append(f"{line}\n")
    for name, some in lines.items():
        path, text = config.folder("predictions") / f"{name}.jsonl", "".join(some)
        write_atomic(path, lambda p, text=text: p.write_text(text, encoding="utf-8") and None)  # type: ignore[misc]


class EvaluateUnit:
    """An actor: the predictions of one unit of questions a call."""

    def __init__(self, config: Config, stage: StageFolder):
        evaluation = section(config)
        torch.set_num_threads(max(1, int(evaluation.workers.cpus)))
        self.stage, self.seed = stage, config.seed
        self.questions = read_questions(resolve(evaluation.questions))
        self.evaluator = Evaluator(config, evaluation, "cuda" if evaluation.workers.gpus else "cpu")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        unit, inputs, start, count = (batch[name][0] for name in ("unit", "inputs", "start", "count"))
        questions = self.questions[int(start) : int(start) + int(count)]
        torch.manual_seed(int(fingerprint([self.seed, str(unit)])[:8], 16))  # counts where answers are sampled
        timed = unit == TIMES
        rows = self.evaluator.times(questions) if timed else self.evaluator.predictions(questions)
        table = pa.Table.from_pylist(rows, TIMES_SCHEMA if timed else PREDICTION_SCHEMA)
        write_parquet(self.stage.path / f"{unit}.parquet", table)
        self.stage.commit(str(unit), str(inputs), {f"{unit}.parquet": len(table)}, {"rows": len(table)})
        return {"unit": [unit]}


if __name__ == "__main__":
    main(STAGE, run, __doc__ or "")
