"""Evaluates the demo's model in every mode: on unseen invented countries, and on real ones held out of training.

    ray job submit --working-dir . -- python -m examples.countries.evaluate --config configs/demo.yaml
    (also: --k 1,3,10 --knowledge-size 200,all --languages en,es)

Both worlds get their knowledge base, index, memory and questions below the run's root, in evaluation/real and
evaluation/invented; what is finished is kept. `jobs.evaluate` then asks the questions. evaluation/report.md holds both
tables, evaluation/report.html both reports.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from transformers import AutoTokenizer

from comem_ray.artifacts import write_atomic
from comem_ray.config import Config, EvaluationConfig, resolve
from comem_ray.evaluation.questions import write_questions
from comem_ray.model.checkpoint import checkpoint_folder
from comem_ray.report.evaluation import write_report
from examples.countries.world.countries import Country, held_out_countries, load_countries
from examples.countries.world.evaluation_questions import evaluation_questions, invented_test_countries
from examples.countries.world.knowledge import write_knowledge_base
from examples.countries.world.questions import QUESTION_LANGUAGES
from examples.countries.world.sentences import name_in
from jobs import evaluate, quickstart
from jobs.common import Summary, guarded, run_stage

STAGE = "evaluate_countries"
DEFAULTS = {"gold_positions": [1, 2, 3], "items_language": "question"}  # where the configuration sets nothing else


@dataclass(frozen=True)
class World:
    """A run of its own: its configuration, the countries of its knowledge base, and those that are asked about."""

    config: Config
    knowledge: Sequence[Country]
    questions: Sequence[Country]


def run(config: Config, languages: Sequence[str] = ("en",)) -> Summary:
    """Evaluates both worlds, in the given languages, below the run's root. Returns the scores of both."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_folder(config.backbone.model))
    invented = invented_test_countries(tokenizer)
    countries = {"real": (load_countries(), held_out_countries()), "invented": (invented, invented)}
    worlds = {
        name: World(world_config(config, name), knowledge, questions)
        for name, (knowledge, questions) in countries.items()
        if any(name_in(country, language) for language in languages for country in questions)
    }
    summaries = {
        name: _evaluate(world, languages, lambda text: len(tokenizer(text).input_ids)) for name, world in worlds.items()
    }
    root = config.folder("evaluation")
    texts = [f"## {name}\n\n{(root / name / 'evaluation' / 'report.md').read_text()}" for name in summaries]
    write_atomic(root / "report.md", lambda p: p.write_text("\n".join(texts), encoding="utf-8") and None)
    parts = [evaluate.finished_evaluation(world.config) for world in worlds.values()]
    write_report(root / "report.html", f"Evaluation of {config.name}", parts)
    return {f"{name}: {k}": v for name, summary in summaries.items() for k, v in summary.items() if "%" in k}


def world_config(config: Config, name: str) -> Config:
    """The configuration of world `name` (real, invented): that of the run, with a root and a knowledge base of its own.

    The section `evaluation` keeps what the run's configuration sets, but for the questions.
    """
    root = config.folder("evaluation") / name
    source = {"path": str(root / "source" / "countries.tsv"), "images": str(root / "source" / "images")}
    evaluation = EvaluationConfig.model_validate(
        DEFAULTS
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


def _evaluate(world: World, languages: Sequence[str], count_tokens: Callable[[str], int]) -> Summary:
    root = resolve(world.config.root)
    write_knowledge_base(root / "source", world.knowledge)
    for stage, work in quickstart.STAGES.items():
        run_stage(stage, work, world.config)
    questions = evaluation_questions(world.questions, world.config.folder("items"), count_tokens, languages)
    write_questions(root / "questions.parquet", questions)
    return run_stage(evaluate.STAGE, evaluate.run, world.config)


def parse_languages(text: str) -> list[str]:
    """The languages of "en,es". Raises argparse.ArgumentTypeError where the demo has no questions in one."""
    languages = text.split(",")
    if unknown := [language for language in languages if language not in QUESTION_LANGUAGES]:
        known = ", ".join(QUESTION_LANGUAGES)
        raise argparse.ArgumentTypeError(f"no questions in {unknown[0]!r}; want some of {known}")
    return languages


def main() -> None:
    """Parses the command line, connects to Ray, evaluates, prints the summary and exits."""
    parser = argparse.ArgumentParser(prog="python -m examples.countries.evaluate", description=__doc__)
    parser.add_argument("--config", required=True, help="YAML configuration of the run")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", dest="overrides")
    parser.add_argument(
        "--languages", type=parse_languages, default=["en"], metavar="A,B,...", help="of the questions; default en"
    )
    for flag, field in evaluate.FLAGS.items():
        parser.add_argument(f"--{flag}", dest=field, metavar="A,B,...", help=f"replaces {field}")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    values = {field: getattr(args, field) for field in evaluate.FLAGS.values()}
    overrides = [*args.overrides, *(f"{field}=[{value}]" for field, value in values.items() if value is not None)]
    sys.exit(guarded(STAGE, partial(run, languages=args.languages), args.config, overrides))


if __name__ == "__main__":
    main()
