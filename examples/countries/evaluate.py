"""The demo model's table: unseen invented countries, and real ones held out of training, in every mode.

    ray job submit --working-dir . -- python -m examples.countries.evaluate --config configs/demo.yaml
    (also: --k 1,3,10 --knowledge-size 200,all)

Each world gets its knowledge base, its index, its memory and its questions (what is finished is kept); jobs.evaluate
then asks them. evaluation/report.md below the run's root holds both tables, evaluation/report.html both reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoTokenizer

from comem_ray.artifacts import write_atomic
from comem_ray.config import Config, EvaluationConfig, resolve
from comem_ray.evaluation.questions import write_questions
from comem_ray.model.checkpoint import checkpoint_folder
from comem_ray.report.evaluation import write_report
from examples.countries.world.countries import Country, held_out_countries, load_countries
from examples.countries.world.evaluation_questions import benchmark_questions, invented_test_countries
from examples.countries.world.knowledge import write_knowledge_base
from examples.countries.world.sentences import name_in
from jobs import evaluate, quickstart
from jobs.common import Summary, main, run_stage

DEFAULT = {"gold_positions": [1, 2, 3], "items_language": "question"}
LANGUAGES = ["en"]


def run(config: Config) -> Summary:
    """Evaluates both worlds under the run's root: evaluation/real and evaluation/invented."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_folder(config.backbone.model))
    tested = invented_test_countries(tokenizer)
    countries = {"real": (load_countries(), held_out_countries()), "invented": (tested, tested)}
    every = {name: _world(config, name) for name in countries}
    worlds = {name: world for name, world in every.items() if _can_be_asked(world, countries[name][1])}
    summaries = {name: _evaluated(world, *countries[name], tokenizer) for name, world in worlds.items()}
    root = config.folder("evaluation")
    texts = [f"## {name}\n\n{(root / name / 'evaluation' / 'report.md').read_text()}" for name in summaries]
    write_atomic(root / "report.md", lambda p: p.write_text("\n".join(texts), encoding="utf-8") and None)
    parts = [evaluate.part(world) for world in worlds.values()]
    write_report(root / "report.html", f"Evaluation of {config.name}", parts)
    return {f"{name}: {k}": v for name, s in summaries.items() for k, v in s.items() if "%" in k}


def _world(config: Config, name: str) -> Config:
    """The run below `config` that has a world of its own."""
    root = config.folder("evaluation") / name
    source = {"path": str(root / "source" / "countries.tsv"), "images": str(root / "source" / "images")}
    evaluation = EvaluationConfig.model_validate(
        DEFAULT
        | (config.evaluation.model_dump(exclude_unset=True) if config.evaluation else {})
        | {"questions": str(root / "questions.parquet"), "sources": []}
    )
    data = config.model_dump(mode="json") | {
        "name": f"{config.name}, {name}",
        "root": str(root),
        "evaluation": evaluation.model_dump(),
    }
    data["ingest"]["sources"] = [source]
    return Config.model_validate(data)


def _can_be_asked(world: Config, asked: Sequence[Country]) -> bool:
    """Whether any country has a name in any of the languages: invented ones have English alone."""
    return any(name_in(country, language) for language in LANGUAGES for country in asked)


def _evaluated(world: Config, known: Sequence[Country], asked: Sequence[Country], tokenizer: Any) -> Summary:
    root = resolve(world.root)
    write_knowledge_base(root / "source", known)
    for stage, work in quickstart.STAGES.items():
        run_stage(stage, work, world)

    tokens = lambda text: len(tokenizer(text).input_ids)  # noqa: E731
    questions = benchmark_questions(asked, world.folder("items"), tokens, LANGUAGES)
    write_questions(root / "questions.parquet", questions)
    return run_stage(evaluate.STAGE, evaluate.run, world)


if __name__ == "__main__":
    main("evaluate_demo", run, __doc__ or "", lists=evaluate.FLAGS)
