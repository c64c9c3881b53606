"""The `comem` command: what is not a job. Thin; everything it does is a function of the library.

The stages are Ray jobs (`ray job submit ... -- python -m jobs.<stage>`), the application is Ray Serve's (`serve run`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, get_args

import typer
import yaml

import comem_ray
from comem_ray.answers import Answer
from comem_ray.artifacts import ArtifactError
from comem_ray.client import URL, Client, ServiceError
from comem_ray.config import ConfigError, load_config
from comem_ray.config.evaluation import TaskName
from comem_ray.home import resolve

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Url = Annotated[str, typer.Option(help="address of the HTTP endpoint")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="COMEM_API_KEY",
        help="key of the endpoint; the variable keeps it off the screen and out of the list of processes",
    ),
]
Overrides = Annotated[list[str], typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="replaces a field")]

PREDICTIONS = 'JSONL of {"data_id", "prediction"}, or the form that the authors of the task score'
RULES = "official; paper: the paper's authors' own scorer; FILE.py: official, with its functions as rules of your own"


@app.command()
def config(path: Path, overrides: Overrides = []) -> None:  # noqa: B006 (typer reads the default)
    """Checks a configuration file and prints it whole, defaults filled in."""
    try:
        loaded = load_config(path, overrides)
    except ConfigError as error:
        typer.echo(f"configuration: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


@app.command()
def ask(
    question: str,
    image: Annotated[Path | None, typer.Option(help="the question's image")] = None,
    mode: Annotated[str, typer.Option(help="none, rag or memory")] = "memory",
    top_k: Annotated[int | None, typer.Option(help="items to retrieve")] = None,
    language: Annotated[str | None, typer.Option(help="language of the items")] = None,
    config: Annotated[Path | None, typer.Option(help="answer in this process, without a server")] = None,
    overrides: Overrides = [],  # noqa: B006 (typer reads the default)
    url: Url = URL,
    api_key: ApiKey = None,
) -> None:
    """Asks a question and prints the answer with its sources: over HTTP, or with --config in this process."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # no bars of loading weights on the way to an answer
    try:
        comem = Client(url, api_key=api_key) if config is None else comem_ray.load(config, overrides)
        typer.echo(render_answer(comem.answer(question, image, mode, top_k, language)))  # type: ignore[arg-type]
    except (ServiceError, ValueError) as error:
        typer.echo(f"ask: {error}", err=True)
        raise typer.Exit(_exit_code(error)) from error


def _exit_code(error: Exception) -> int:
    """1 where the service refused or is away, 3 for a missing artifact, 2 for what the user can mend here."""
    return 1 if isinstance(error, ServiceError) else 3 if isinstance(error, ArtifactError) else 2


@app.command()
def score(
    task: Annotated[str, typer.Option(help=f"one of {', '.join(get_args(TaskName))}")],
    references: Annotated[list[Path], typer.Option(metavar="FILE...", help="the task's own files")],
    predictions: Annotated[Path, typer.Option(metavar="FILE", help=PREDICTIONS)],
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE...]", help="more references")] = None,
    question_types: Annotated[Path | None, typer.Option(metavar="FILE", help="infoseek_val_qtype.jsonl")] = None,
    titles: Annotated[Path | None, typer.Option(metavar="FILE", help="OVEN's titles of Wikipedia")] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="vocab.txt of bert-base-uncased, OVEN")
    ] = None,
    rules: Annotated[str, typer.Option(help=RULES)] = "official",
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="a configuration with scoring_rules")] = None,
    per_question: Annotated[Path | None, typer.Option(metavar="FILE", help="writes one JSONL row per question")] = None,
) -> None:
    """Scores a file of predictions by the task's official rules and prints one JSON object."""
    from comem_ray.tasks.rules.own import import_rules, rules_in
    from comem_ray.tasks.scorecard import scorecard
    from comem_ray.tasks.task import TaskFiles

    files = TaskFiles([*references, *(more or [])], question_types=question_types, titles=titles, vocabulary=vocabulary)
    try:
        own_rules = {} if config is None else import_rules(load_config(config).scoring_rules)
        if rules.endswith(".py"):
            own_rules, rules = {**own_rules, **rules_in(Path(rules))}, "official"
        card = scorecard(task, files, predictions, rules, own_rules)  # type: ignore[arg-type]
        if per_question is not None:
            rows = (json.dumps(row, ensure_ascii=False) + "\n" for row in card.rows)
            per_question.write_text("".join(rows), encoding="utf-8", errors="backslashreplace")
    except (ValueError, OSError) as error:
        typer.echo(f"score: {error}", err=True)
        raise typer.Exit(2) from error
    for warning in card.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(json.dumps(card.summary, ensure_ascii=False, indent=2))


@app.command(name="convert-training-data")
def convert_training_data(
    source: Annotated[Path, typer.Argument(metavar="JSON", help="LLaVA-style training data: a list, or JSON lines")],
    images: Annotated[Path, typer.Option(metavar="DIR", help="folder of the questions' images")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="a new folder for the samples and items.jsonl")],
    item_images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="folder of the items' images; the same if left out")
    ] = None,
    language: Annotated[str, typer.Option(help="language of the questions")] = "en",
) -> None:
    """Turns LLaVA-style training JSON, as the paper's authors use it, into samples and a source of items."""
    from comem_ray.training.data.llava import LlavaFiles, convert

    try:
        counts = convert(LlavaFiles(source, images, item_images or images, language), out)
    except (ValueError, OSError) as error:
        typer.echo(f"convert-training-data: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(json.dumps(counts, indent=2))


@app.command()
def verify(root: Annotated[Path, typer.Argument(help="the folder of a run, which holds items/, index/, ...")]) -> None:
    """Reads every file of a run and names what is damaged or does not belong together. Exit code 3 if anything is."""
    from comem_ray.artifacts.verify import verify as reports

    faults = 0
    try:
        for report in reports(root if root.exists() else resolve(str(root))):
            size = f"{report.files:,} files, {report.bytes:,} bytes"
            typer.echo(f"{report.folder.name:14} generation {report.generation or 'unknown'}, {size}")
            for fault in report.faults:
                typer.echo(f"   {fault}", err=True)
            faults += len(report.faults)
    except ArtifactError as error:
        typer.echo(f"verify: {error}", err=True)
        raise typer.Exit(3) from error
    typer.echo("everything is as it was written" if not faults else f"{faults} faults, see above")
    raise typer.Exit(3 if faults else 0)


@app.command()
def doctor(
    path: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML configuration of a run")],
    overrides: Overrides = [],  # noqa: B006 (typer reads the default)
    part: Annotated[str, typer.Option(help="all, benchmarks or run")] = "all",
    as_json: Annotated[bool, typer.Option("--json", help="prints one JSON object")] = False,
) -> None:
    """Says what is there and what is missing: benchmarks' files, models, and the artifacts of a run.

    Exit code 0 if nothing is missing, 3 if something is, 2 for a wrong configuration. Downloads nothing.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read where the hub's client is imported
    from comem_ray.doctor import diagnosis

    try:
        if part not in get_args(diagnosis.Part):
            raise ConfigError(f"--part is {part!r}, want one of {', '.join(get_args(diagnosis.Part))}")
        findings = list(diagnosis.diagnose(load_config(path, overrides), part))  # type: ignore[arg-type]
    except ConfigError as error:
        typer.echo(f"doctor: {error}", err=True)
        raise typer.Exit(2) from error
    report = diagnosis.as_json(findings)
    typer.echo(json.dumps(report, ensure_ascii=False, indent=2) if as_json else diagnosis.as_text(findings))
    raise typer.Exit(0 if report["ok"] else 3)


@app.command("import-checkpoint")
def import_checkpoint(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="folder of the authors' release, or its name on the hub")
    ],
    base: Annotated[str, typer.Option(help="the backbone that it was trained from: a folder, or a name on the hub")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder to write, which is not there yet")],
    rank: Annotated[
        int | None, typer.Option(min=1, help="rank to keep; default: 16, or more where more is found")
    ] = None,
    passes: Annotated[int, typer.Option(min=1, help="passes of the Q-Former through its layer; no weight tells")] = 8,
    heads: Annotated[int, typer.Option(min=1, help="attention heads of the Q-Former; no weight tells")] = 16,
) -> None:
    """Makes an adapter of a checkpoint that CoMEM's authors released, and a configuration that runs it as they do.

    The release and its base are read tensor by tensor: 3 GB of memory are enough at 7B. LoRA is recovered from the
    difference to the base, the Q-Former is renamed. DIR is whole at the end, or not there. Also takes what `comem
    export` wrote. docs/checkpoints.md says more.
    """
    from comem_ray.model.released.importing import import_checkpoint

    show = _progress("Linears") if sys.stderr.isatty() else lambda done, total: None
    try:
        report = import_checkpoint(source, base, out, rank, passes, heads, show)
    except (ValueError, OSError) as error:
        typer.echo(f"import-checkpoint: {error}", err=True)
        raise typer.Exit(_exit_code(error)) from error
    typer.echo(report.table())
    typer.echo(f"written to {out}; try it: comem config {out / 'comem.yaml'}")


@app.command()
def export(
    config: Annotated[Path, typer.Option(metavar="CONFIG", help="configuration whose adapter.path is exported")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder to write, which is not there yet")],
    merged: Annotated[
        bool,
        typer.Option("--merged", help="also whole checkpoints, LoRA added to the weights: as large as the backbone"),
    ] = False,
    overrides: Overrides = [],  # noqa: B006 (typer reads the default)
) -> None:
    """Writes the adapter as a folder for the Hugging Face Hub: PEFT files, Q-Former, configuration, model card.

    The card has the tables of the run's evaluation, if there is one of this adapter. Read it and comem.yaml before you
    publish them. DIR is whole at the end, or not there.
    """
    from comem_ray.export.hub import export_adapter

    show = _progress("tensors") if sys.stderr.isatty() else lambda done, total: None
    try:
        files = export_adapter(load_config(config, overrides), out, merged, show)
    except (ValueError, OSError) as error:
        typer.echo(f"export: {error}", err=True)
        raise typer.Exit(_exit_code(error)) from error
    for name, size in files.items():
        typer.echo(f"{size:>15,}  {name}")


def _progress(what: str) -> Callable[[int, int], None]:
    """Writes the count of a long work over itself on the last line of the terminal."""

    def show(done: int, total: int) -> None:
        typer.echo(f"\r{what}: {done} of {total}" + ("\n" if done == total else ""), nl=False, err=True)

    return show


def render_answer(answer: Answer) -> str:
    """The answer in a few lines: its text, its sources with their scores, tokens and time."""
    usage, stages = answer.usage, answer.timings_ms
    lines = [f"   {answer.mode:6} {answer.text.strip()!r}"]
    lines += [f"          {source.score:.3f}  {source.title}  ({source.item_id})" for source in answer.sources]
    counts = f"{usage.prompt_tokens} prompt tokens, {usage.memory_vectors} memory vectors"
    took = stages.get("total", sum(stages.values()))
    lines += [f"          {counts}, {usage.completion_tokens} completion tokens, {took:.0f} ms"]
    return "\n".join(lines)


if __name__ == "__main__":
    app()
