"""The `comem` command: what is not a job. Thin; everything it does is a function of the library.

The stages are Ray jobs (`ray job submit ... -- python -m jobs.<stage>`), the application is Ray Serve's (`serve run`).
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Annotated, Any, get_args

import requests
import typer
import yaml

from comem_ray.config import ConfigError, load_config
from comem_ray.config.evaluation import TaskName

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Url = Annotated[str, typer.Option(help="address of the HTTP endpoint")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="replaces a field")]
ENDPOINT = "http://127.0.0.1:8000"


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
    url: Url = ENDPOINT,
) -> None:
    """Asks the HTTP endpoint a question and prints the answer with its sources."""
    body: dict[str, Any] = {"question": question, "mode": mode, "top_k": top_k, "language": language}
    typer.echo(render_answer(post_question(url, {k: v for k, v in body.items() if v is not None}, image)))


@app.command()
def score(
    task: Annotated[str, typer.Option(help=f"one of {', '.join(get_args(TaskName))}")],
    references: Annotated[list[Path], typer.Option(metavar="FILE...", help="the task's own files")],
    predictions: Annotated[Path, typer.Option(metavar="FILE", help='JSONL of {"data_id", "prediction"}')],
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE...]", help="more references")] = None,
    question_types: Annotated[Path | None, typer.Option(metavar="FILE", help="infoseek_val_qtype.jsonl")] = None,
    titles: Annotated[Path | None, typer.Option(metavar="FILE", help="OVEN's titles of Wikipedia")] = None,
    rules: Annotated[str, typer.Option(help="official, or paper: the paper's authors' own scorer")] = "official",
    per_question: Annotated[Path | None, typer.Option(metavar="FILE", help="writes one JSONL row per question")] = None,
) -> None:
    """Scores a file of predictions by the task's official rules and prints one JSON object."""
    from comem_ray.tasks.scorecard import scorecard
    from comem_ray.tasks.task import TaskFiles

    files = TaskFiles([*references, *(more or [])], question_types=question_types, titles=titles)
    try:
        card = scorecard(task, files, predictions, rules)  # type: ignore[arg-type]
        if per_question is not None:
            rows = (json.dumps(row, ensure_ascii=False) + "\n" for row in card.rows)
            per_question.write_text("".join(rows), encoding="utf-8", errors="backslashreplace")
    except (ValueError, OSError) as error:
        typer.echo(f"score: {error}", err=True)
        raise typer.Exit(2) from error
    for warning in card.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(json.dumps(card.summary, ensure_ascii=False, indent=2))


def post_question(url: str, body: dict[str, Any], image: Path | None) -> dict[str, Any]:
    if image is not None:
        try:
            body["image"] = base64.b64encode(image.read_bytes()).decode()
        except OSError as error:
            raise typer.BadParameter(f"cannot read {image}: {error.strerror}", param_hint="--image") from error
    try:
        reply = requests.post(f"{url}/v1/answer", json=body, timeout=600)
    except requests.ConnectionError as error:
        typer.echo(f"no answer from {url}: is `make serve` running?", err=True)
        raise typer.Exit(1) from error
    if not reply.ok:
        typer.echo(f"{reply.status_code}: {reply.text}", err=True)
        raise typer.Exit(1)
    return reply.json()


def render_answer(reply: dict[str, Any]) -> str:
    usage, took = reply["usage"], sum(reply["timings_ms"].values())
    lines = [f"   {reply['mode']:6} {reply['answer'].strip()!r}"]
    lines += [f"          {s['score']:.3f}  {s['title']}  ({s['item_id']})" for s in reply["sources"]]
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in usage.items())
    return "\n".join([*lines, f"          {counts}, {took:.0f} ms"])


if __name__ == "__main__":
    app()
