"""The shape of the repository: imports between its parts, names, sizes, tests by name, and what is packaged."""

from __future__ import annotations

import ast
import re
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
PRODUCT = ("comem_ray", "jobs", "serve", "examples")
CODE = (*PRODUCT, "benchmarks")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60

# The parts of comem_ray from the bottom to the top. A part imports only from lower lines, never from its own line.
LAYERS = [
    {"home", "clock", "finite", "language"},
    {"artifacts", "prompts"},
    {"weights"},
    {"config"},
    {"knowledge"},
    {"answers", "connection", "retrieval", "model", "tasks"},
    {"memory_store"},
    {"pipeline", "client", "http_proxy"},
    {"evaluation", "training"},
    {"report", "doctor", "export"},
    {"__init__"},
    {"cli"},
]

# Modules whose test has another name, with the reason. All others are tested by tests/<path>/test_<module>.py.
TESTED_ELSEWHERE = {
    "serve/deployments/ingress.py": "hands over to serve/http/api.py: tests/serve/http/test_api.py asks it over HTTP",
    "serve/deployments/model.py": "what three deployments share: their tests cover it",
    "serve/http/item_bodies.py": "declares fields: tests/serve/http/test_items.py and test_bodies.py read them all",
    "comem_ray/config/api.py": "declares fields only: tests/config/test_run.py reads them all",
    "comem_ray/config/ingest.py": "declares fields only: tests/config/test_run.py reads them all",
    "comem_ray/config/retrieval.py": "declares fields only: tests/config/test_run.py reads them all",
    "comem_ray/config/training.py": "declares fields only: tests/config/test_run.py reads them all",
}

# The private dialect of version 0.1: as a whole identifier, or as a part of one.
DIALECT = {
    "said",
    "found",
    "asked",
    "told",
    "looked",
    "sights",
    "bad",
    "fate",
    "fates",
    "judged",
    "beside",
    "strangers",
}
DIALECT_PARTS = DIALECT - {"found", "bad", "beside"}  # these have honest compounds, such as not_found
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


def identifiers(path: Path) -> Iterator[tuple[str, int]]:
    """Every name that a file defines, binds or uses, with its line."""
    for node in ast.walk(tree(path)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, line
        elif isinstance(node, ast.Name):
            yield node.id, line
        elif isinstance(node, ast.Attribute):
            yield node.attr, line
        elif isinstance(node, ast.arg | ast.keyword):
            yield node.arg or "", line
        elif isinstance(node, ast.alias):
            yield node.asname or "", line


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


def part(module: str) -> str:
    """The part of comem_ray that an imported module belongs to."""
    return [*module.split("."), "__init__"][1]


def imported_parts(path: Path) -> set[str]:
    """The parts of comem_ray that a file imports from; its version belongs to none."""
    names = [f"{module}.{name}" if module == "comem_ray" and name else module for module, name in imports(path)]
    return {part(name) for name in names if name.split(".")[0] == "comem_ray"} - {"__version__"}


@pytest.mark.parametrize("path", modules("comem_ray"), ids=str)
def test_the_library_imports_neither_ray_nor_its_users(path: Path) -> None:
    roots = {module.split(".")[0] for module, _ in imports(path)}
    assert not roots & {"ray", "jobs", "serve", "examples", "tests", "benchmarks"}


@pytest.mark.parametrize("path", modules("comem_ray"), ids=str)
def test_no_import_runs_upward(path: Path) -> None:
    own = path.with_suffix("").parts[1]
    layer = {name: n for n, names in enumerate(LAYERS) for name in names}
    assert own in layer, f"{own} has no place in LAYERS"
    upward = {other for other in imported_parts(path) - {own} if layer[other] >= layer[own]}
    assert not upward, f"{own} imports {', '.join(sorted(upward))}, which is not below it"


@pytest.mark.parametrize("path", modules("comem_ray"), ids=str)
def test_the_library_neither_prints_nor_edits_the_path_nor_imports_stars(path: Path) -> None:
    calls = {n.func.id for n in ast.walk(tree(path)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    attributes = {ast.unparse(n) for n in ast.walk(tree(path)) if isinstance(n, ast.Attribute)}
    assert "print" not in calls
    assert "sys.path" not in attributes
    assert "*" not in {name for _, name in imports(path)}


def test_importing_the_package_is_quick_and_loads_neither_torch_nor_ray() -> None:
    printed = python(
        "import sys, time; start = time.process_time(); import comem_ray;"
        "print(time.process_time() - start, {'torch', 'ray', 'transformers'} & set(sys.modules))"
    )
    seconds, loaded = printed.split(" ", 1)
    assert loaded == "set()"
    assert float(seconds) < 1


def test_importing_the_configuration_loads_nothing_heavy() -> None:
    loaded = python(
        "import sys, comem_ray.config, comem_ray.artifacts, comem_ray.knowledge.schema;"
        "print({'torch', 'ray', 'transformers', 'faiss', 'open_clip', 'PIL'} & set(sys.modules))"
    )
    assert loaded == "set()"


def test_importing_the_library_starts_nothing() -> None:
    names = [".".join(path.with_suffix("").parts) for path in modules("comem_ray") if path.name != "__init__.py"]
    printed = python(
        "import importlib, sys, threading, multiprocessing\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print('ray' in sys.modules, threading.active_count(), multiprocessing.active_children())"
    )
    assert printed == "False 1 []"


@pytest.mark.parametrize("path", [p for p in modules(*PRODUCT) if p.name != "__init__.py"], ids=str)
def test_every_module_has_its_test(path: Path) -> None:
    folders = path.parent.parts[1:] if path.parts[0] == "comem_ray" else path.parent.parts
    test = Path("tests", *folders, f"test_{path.name}")
    assert (test in FILES) != (str(path) in TESTED_ELSEWHERE), f"{test} is missing, or {path} is excused without need"


@pytest.mark.parametrize("path", modules(*CODE), ids=str)
def test_every_module_has_a_docstring_and_is_short(path: Path) -> None:
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    assert ast.get_docstring(tree(path)), f"{path} has no docstring"
    assert len(text.splitlines()) <= MAX_FILE_LINES
    functions = [n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions}
    assert {name: lines for name, lines in long.items() if lines > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", modules(*PRODUCT), ids=str)
def test_names_are_those_of_the_field(path: Path) -> None:
    dialect = [
        f"{name} (line {line})"
        for name, line in identifiers(path)
        if name.strip("_").lower() in DIALECT or DIALECT_PARTS & set(name.lower().split("_"))
    ]
    assert dialect == []


@pytest.mark.parametrize("path", [p for p in modules(*CODE, "tests") if p.name != "test_layout.py"], ids=str)
def test_sources_are_cited_by_what_a_reader_can_open(path: Path) -> None:
    """The method is docs/method.md or the paper, never the team's own page METHOD."""
    assert not re.search(r"\bMETHOD\b", (REPOSITORY / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "path",
    [p for p in modules("jobs") if p.stem not in ("__init__", "common", "console", "item_shards", "refusals")],
    ids=str,
)
def test_every_job_shows_how_to_submit_it(path: Path) -> None:
    docstring = ast.get_docstring(tree(path)) or ""
    assert f"ray job submit --working-dir . -- python -m jobs.{path.stem} --config configs/" in docstring
    functions = [node.name for node in tree(path).body if isinstance(node, ast.FunctionDef)]
    assert "run" in functions


def test_the_top_of_the_repository_holds_nothing_else() -> None:
    assert {path.parts[0] for path in FILES} <= TOP_LEVEL


def test_tests_are_not_a_package() -> None:
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
    assert package.stat().st_size < 2_000_000
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
