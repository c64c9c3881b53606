"""The pages: what they name exists, what they tell a reader to type works, what is printed from the code is current."""

from __future__ import annotations

import ast
import io
import json
import re
import runpy
import shlex
from contextlib import redirect_stdout
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from support.pages import PAGES, ROOT, anchors, blocks, name, prose
from typer.main import get_command

from comem_ray.cli import app
from comem_ray.config import Config, load_config
from scripts.configuration_reference import reference

# Their commands and paths are of their date.
HISTORY = {"BENCHMARKS.md", "CHANGELOG.md", "examples/countries/EXPERIMENTS.md"}
GONE = {"comem_ray/demo/"}  # a page names it because it is gone
FOLDERS = "comem_ray|jobs|serve|examples|configs|docs|scripts|tests|benchmarks"
SHELL = {"", "sh", "bash", "shell", "console"}
COMMAND = re.compile(r"(\$ )?(make|python|comem|ray|serve|curl|\.venv/bin/\w+) ")
NEEDS = ("<!-- needs a cluster -->", "<!-- needs a service -->")
AN_X_A_Y = re.compile(
    r"\b(?:an?|one|\d+) \w+ an? (?:question|item|call|row|line|unit|shard|stage|task|file|batch|worker|node|request"
    r"|token|step|sample|core|language|section|benchmark|field|second)\b"
)

every_page = pytest.mark.parametrize("page", PAGES, ids=name)
current_page = pytest.mark.parametrize("page", [p for p in PAGES if name(p) not in HISTORY], ids=name)


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", prose(page)):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(linked), f"{target or name(page)} has no heading #{anchor}"


@current_page
def test_every_path_exists(page: Path) -> None:
    """A name that follows a path, as in `jobs/common.py: run_units`, stands in that file."""
    for path, symbol in re.findall(rf"`((?:{FOLDERS})/[^`\s:]*)(?:: (\w+))?", page.read_text(encoding="utf-8")):
        if "<" not in path and path not in GONE:
            found = list(ROOT.glob(path.rstrip("/")))
            assert found, f"{path} is not there"
            assert not symbol or symbol in found[0].read_text(encoding="utf-8"), f"{path} has no {symbol}"


@current_page
def test_every_module_exists(page: Path) -> None:
    for module in re.findall(r"(?<![\w./-])((?:jobs|examples)(?:\.[a-z_]+)+)", page.read_text(encoding="utf-8")):
        path = ROOT / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), f"{module} is not there"


@every_page
def test_prose_is_easy_to_read(page: Path) -> None:
    assert [line for line in prose(page).splitlines() if len(line) > 120 and not line.startswith("|")] == []
    assert AN_X_A_Y.findall(prose(page)) == [], "write 'one X per Y'"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_configuration_reference_is_current() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference(), "run python -m scripts.configuration_reference > docs/configuration.md"


def test_every_field_of_the_configuration_says_what_it_means() -> None:
    assert [line for line in reference().splitlines() if line.endswith("|  |")] == []


@current_page
def test_every_command_works(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for block in blocks(page):
        if block.language in SHELL and block.before not in NEEDS:
            for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
                if COMMAND.match(line):
                    check_command(shlex.split(line.removeprefix("$ "), comments=True), line)


def check_command(command: list[str], line: str) -> None:
    program, *arguments = command
    if program == "make":
        assert re.search(rf"(?m)^{arguments[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8")), line
    elif program == "comem":
        check_flags(arguments, options_of(arguments[0]), line)
    elif program == "python" and arguments[0] == "-c":
        compile(arguments[1], line, "exec")
    elif program == "python":
        check_flags(arguments, help_of(arguments[arguments[0] == "-m"]), line)
    else:
        assert program.startswith(".venv/bin/"), f"{line}: write one of {NEEDS} above its block"
    check_configuration(arguments)


def check_flags(arguments: list[str], known: str, line: str) -> None:
    for flag in (argument.partition("=")[0] for argument in arguments if argument.startswith("--")):
        assert re.search(rf"{flag}\b", known), f"{line}: there is no {flag}"


def check_configuration(arguments: list[str]) -> None:
    """Reads the file that a command names, with the fields that it sets; for a reader's own file, one of ours."""
    given = list(pairwise(arguments))
    overrides = [value for flag, value in given if flag == "--set"]
    for path in (value for flag, value in given if flag in ("--config", "config")):
        load_config(path if Path(path).exists() else "configs/qwen2_5_vl_7b.yaml", overrides)


def options_of(command: str) -> str:
    """The options of a command of `comem`."""
    group = get_command(app)
    return " ".join(option for p in group.commands[command].params for option in p.opts)  # type: ignore[attr-defined]


@cache
def help_of(target: str) -> str:
    """What --help of a module, or of a script, prints."""
    run = runpy.run_path if target.endswith(".py") else runpy.run_module
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setattr("sys.argv", [target, "--help"])
        with pytest.raises(SystemExit) as exit:
            run(target, run_name="__main__")
    assert exit.value.code == 0
    return printed.getvalue()


@every_page
def test_python_compiles_and_sections_of_a_configuration_are_valid(page: Path) -> None:
    ours = yaml.safe_load((ROOT / "configs" / "qwen2_5_vl_7b.yaml").read_text(encoding="utf-8"))
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, name(page), "exec")
        elif block.language == "yaml" and (given := yaml.safe_load(block.text)).keys() <= Config.model_fields.keys():
            merged = {k: {**ours.get(k, {}), **v} if isinstance(v, dict) else v for k, v in given.items()}
            Config.model_validate({**ours, **merged})


def test_the_bodies_of_the_http_api_are_those_of_the_service() -> None:
    from serve.http import bodies, chat_bodies, chat_replies, item_bodies

    values = [v for module in (bodies, chat_bodies, chat_replies, item_bodies) for v in vars(module).values()]
    models = [m for m in values if isinstance(m, type) and issubclass(m, BaseModel) and m.model_fields]
    examples = [block.text for block in blocks(ROOT / "docs" / "http-api.md") if block.language == "json"]
    assert len(examples) > 4
    for example in examples:
        assert any(is_body(model, example) for model in models), example


def is_body(model: type[BaseModel], example: str) -> bool:
    """Whether `example` is a body of this model, without a field that the model lacks."""
    try:
        return json.loads(example).keys() <= model.model_validate_json(example).model_dump().keys()
    except ValidationError:
        return False


def test_quoted_messages_are_those_of_the_code() -> None:
    """In the first column of the tables below the first heading, a message is code, with `...` for what differs."""
    _, _, sections = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").partition("\n## ")
    for cell in re.findall(r"(?m)^\| (.*?) \| ", sections):
        for message in re.findall(r"``(.+?)``|`([^`]+)`", cell):
            for part in "".join(message).split("..."):
                assert part in strings_of_the_code(), f"no message says {part!r}"


@cache
def strings_of_the_code() -> str:
    """Every string of the code, with `...` for what an f-string fills in, and the shell scripts."""
    modules = [path for folder in ("comem_ray", "jobs", "serve") for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for path in modules for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    strings = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return "\n".join([*strings, *(path.read_text(encoding="utf-8") for path in ROOT.glob("scripts/*.sh"))])
