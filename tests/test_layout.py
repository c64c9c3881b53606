"""The shape of the repository: who imports what, what is installed, what travels with a job, what stands where."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ray._private.runtime_env.packaging import create_package

REPOSITORY = Path(__file__).resolve().parents[1]
LIBRARY, CODE = ("comem_ray",), ("comem_ray", "jobs", "serve", "benchmarks")
MAY_IMPORT_RAY = {"comem_ray/training/loop.py"}
TOP_LEVEL = {
    ".ci", ".gitignore", ".rayignore", "BENCHMARKS.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile",
    "README.md", "benchmarks", "cluster.yaml", "comem_ray", "configs", "constraints.txt", "docs", "examples", "jobs",
    "pyproject.toml", "scripts", "serve", "tests",
}  # fmt: skip


def files() -> list[Path]:
    """Every file that is, or would be, committed; relative to the repository."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return sorted({Path(name) for name in listing.split("\0") if name and (REPOSITORY / name).is_file()})


FILES = files()


def modules(*folders: str) -> list[Path]:
    return [path for path in FILES if path.suffix == ".py" and path.parts[0] in folders]


def tree(path: Path) -> ast.Module:
    return ast.parse((REPOSITORY / path).read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of every import of a file, those inside functions too; a relative one made absolute."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.parts[:-1][: len(path.parts) - node.level]) if node.level else ""
            module = ".".join(part for part in (package, node.module or "") if part)
            yield from ((module, alias.name) for alias in node.names)


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True, text=True).stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the files that are committed, as a clone would have them."""
    root = tmp_path / "clone"
    for path in FILES:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / path, root / path)
    return root


@pytest.mark.parametrize("path", modules(*LIBRARY), ids=str)
def test_the_library_knows_neither_ray_nor_what_uses_it(path: Path) -> None:
    roots = {module.split(".")[0] for module, _ in imports(path)}
    assert not roots & {"jobs", "serve", "tests", "benchmarks"}
    assert "ray" not in roots or str(path) in MAY_IMPORT_RAY


@pytest.mark.parametrize("path", modules(*LIBRARY), ids=str)
def test_the_library_neither_prints_nor_edits_the_path_nor_imports_stars(path: Path) -> None:
    calls = {n.func.id for n in ast.walk(tree(path)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    attributes = {ast.unparse(n) for n in ast.walk(tree(path)) if isinstance(n, ast.Attribute)}
    assert "print" not in calls
    assert "sys.path" not in attributes
    assert "*" not in {name for _, name in imports(path)}


def test_importing_the_configuration_loads_nothing_heavy() -> None:
    loaded = python(
        "import sys, comem_ray.config, comem_ray.artifacts, comem_ray.knowledge.schema;"
        "print({'torch', 'ray', 'transformers', 'faiss', 'open_clip', 'PIL'} & set(sys.modules))"
    )
    assert loaded == "set()"


def test_importing_the_library_starts_nothing() -> None:
    names = [".".join(path.with_suffix("").parts) for path in modules(*LIBRARY) if path.name != "__init__.py"]
    printed = python(
        "import importlib, sys, threading, multiprocessing\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print('ray' in sys.modules, threading.active_count(), multiprocessing.active_children())"
    )
    assert printed == "False 1 []"


@pytest.mark.parametrize("path", modules(*CODE), ids=str)
def test_every_module_says_what_it_is_and_is_short(path: Path) -> None:
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    assert ast.get_docstring(tree(path)), f"{path} has no docstring"
    assert len(text.splitlines()) <= 350


@pytest.mark.parametrize(
    "path", [p for p in modules("jobs") if p.stem not in ("__init__", "common", "console", "refusals")], ids=str
)
def test_every_job_shows_how_to_submit_it(path: Path) -> None:
    said = ast.get_docstring(tree(path)) or ""
    assert f"ray job submit --working-dir . -- python -m jobs.{path.stem} --config configs/" in said
    functions = [node.name for node in tree(path).body if isinstance(node, ast.FunctionDef)]
    assert "run" in functions


def test_nothing_stands_at_the_top_that_has_no_place_there() -> None:
    assert {path.parts[0] for path in FILES} <= TOP_LEVEL


def test_tests_are_no_package() -> None:
    assert [path for path in FILES if path.parts[0] == "tests" and path.name == "__init__.py"] == []


def test_the_wheel_holds_the_library_alone_and_all_of_it(copy: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w"]
    subprocess.run([*command, str(tmp_path), str(copy)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("comem_ray-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [Path(name) for name in archive.namelist()]
    assert {name.parts[0].split("-")[0] for name in names} == {"comem_ray"}
    assert {name for name in names if name.suffix == ".py"} == set(modules("comem_ray"))
    assert {path for path in FILES if path.parts[0] == "comem_ray"} <= set(names)


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="comem")
    assert callable(command.load())


def test_what_travels_with_a_job_is_the_code_and_little_else(copy: Path, tmp_path: Path) -> None:
    for junk in (
        "examples/countries/weights/a/model.safetensors",
        "runs/demo/items/part-0000-000000.parquet",
        "wit.tsv.gz",
        "a.tsv",
    ):
        (copy / junk).parent.mkdir(parents=True, exist_ok=True)
        (copy / junk).write_bytes(bytes(1_000))
    subprocess.run(["git", "init", "--quiet", str(copy)], check=True)
    package = tmp_path / "package.zip"
    create_package(str(copy), package, include_gitignore=True)
    with zipfile.ZipFile(package) as archive:
        names = {Path(name) for name in archive.namelist() if not name.endswith("/")}
    assert package.stat().st_size < 1_000_000
    assert set(modules("comem_ray", "jobs", "serve")) <= names
    assert {path for path in FILES if path.parts[0] in ("configs", "serve")} <= names
    assert {name.suffix for name in names} & {".safetensors", ".parquet", ".gz", ".tsv"} == set()
    assert {name.parts[0] for name in names} & {"runs", "tests", "docs", ".git", ".venv"} == set()


def test_every_direct_dependency_is_pinned_to_a_version_it_allows() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert all(str(pin.specifier).startswith("==") and not pin.url for pin in pins)
    assert len(versions) == len(pins)
    wanted = project["dependencies"] + [r for extra in project["optional-dependencies"].values() for r in extra]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement
    assert not [name for name in versions if name.startswith(("nvidia-", "cuda-"))]


def test_ci_calls_the_test_command_of_the_readme() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    commands = [line for line in script.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert commands[0] == "set -euo pipefail"
    assert commands[-1].startswith("exec make test")
