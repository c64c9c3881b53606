"""The demo model's table: unseen invented countries, and real ones held out of training, in every mode.

    ray job submit --working-dir . -- python -m jobs.evaluate_demo --config configs/demo.yaml

Each world gets its knowledge base, its index, its memory and its questions (what is finished is kept); jobs.evaluate
then asks them. evaluation/report.md below the run's root holds both tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoTokenizer

from comem_ray.artifacts import write_atomic
from comem_ray.config import Config
from comem_ray.config_evaluation import Evaluation
from comem_ray.demo.benchmark import benchmark_questions, invented_test_countries
from comem_ray.demo.countries import Country, held_out_countries, load_countries
from comem_ray.demo.knowledge import write_knowledge_base
from comem_ray.evaluation.questions import write_questions
from comem_ray.model.checkpoint import checkpoint_folder
from jobs import evaluate, quickstart
from jobs.common import Summary, main, run_stage

DEFAULT = Evaluation(questions="set for each world", modes=["none", "rag", "memory"], k=[1, 3, 10], places=[1, 2, 3])


def run(config: Config) -> Summary:
    """Evaluates both worlds under the run's root: evaluation/real and evaluation/invented."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_folder(config.backbone.model))
    tested = invented_test_countries(tokenizer)
    summaries = {
        "real": _world(config, "real", load_countries(), held_out_countries(), tokenizer),
        "invented": _world(config, "invented", tested, tested, tokenizer),
    }
    root = config.folder("evaluation")
    texts = [f"## {name}\n\n{(root / name / 'evaluation' / 'report.md').read_text()}" for name in summaries]
    write_atomic(root / "report.md", lambda p: p.write_text("\n".join(texts), encoding="utf-8") and None)
    return {f"{name}: {k}": v for name, s in summaries.items() for k, v in s.items() if "%" in k}


def _world(config: Config, name: str, known: Sequence[Country], asked: Sequence[Country], tokenizer: Any) -> Summary:
    root = config.folder("evaluation") / name
    write_knowledge_base(root / "source", known)
    source = {"path": str(root / "source" / "countries.tsv"), "pictures": str(root / "source" / "pictures")}
    settings = (config.evaluation or DEFAULT).model_dump() | {"questions": str(root / "questions.parquet")}
    data = config.model_dump(mode="json") | {
        "name": f"{config.name}, {name}",
        "root": str(root),
        "evaluation": settings,
    }
    data["ingest"]["sources"] = [source]
    world = Config.model_validate(data)
    for stage, work in quickstart.STAGES.items():
        run_stage(stage, work, world)
    questions = benchmark_questions(asked, world.folder("items"), lambda text: len(tokenizer(text).input_ids))
    write_questions(root / "questions.parquet", questions)
    return run_stage(evaluate.STAGE, evaluate.run, world)


if __name__ == "__main__":
    main("evaluate_demo", run, __doc__ or "")
