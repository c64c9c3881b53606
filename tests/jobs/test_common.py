"""The frame of every job: exit codes, summary, and a pool of workers that outlives a worker killed with SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.exceptions import RayError

from comem_ray.artifacts import ArtifactError, StageFolder, StorageError
from comem_ray.config import Config, ConfigError, WorkersConfig, load_config
from jobs.common import Summary, guarded, main, run_units, table
from jobs.evaluate import FLAGS

REPOSITORY = Path(__file__).resolve().parents[2]
UNITS = [{"unit": f"part-0000-{i:06d}", "inputs": f"digest{i}"} for i in range(6)]
INPUTS = {row["unit"]: row["inputs"] for row in UNITS}


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    data = {
        "name": "small",
        "root": str(tmp_path / "run"),
        "ingest": {"sources": [{"path": str(tmp_path / "nowhere.tsv")}]},
        "clip": {"model": "ViT-B-32"},
        "backbone": {"model": "backbone"},
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def job(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A stage as a user starts it without a cluster."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_a_job_with_a_wrong_configuration_exits_with_2_and_one_message(config_file: Path) -> None:
    result = job("jobs.encode_memory", "--config", str(config_file), "--set", "index.factroy=Flat")
    assert result.returncode == 2
    assert last_line(result.stderr) == f"configuration: {config_file}: field index.factroy: there is no such field"
    assert "Traceback" not in result.stderr


def test_a_job_whose_input_is_missing_exits_with_3_and_says_what_to_run(config_file: Path, tmp_path: Path) -> None:
    result = job("jobs.encode_memory", "--config", str(config_file))
    assert result.returncode == 3
    assert last_line(result.stderr).startswith(f"artifact: {tmp_path / 'run'}")
    assert "run the stage" in last_line(result.stderr)
    assert "Traceback" not in result.stderr


def test_a_job_without_a_configuration_shows_how_to_call_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["jobs.count"])
    with pytest.raises(SystemExit) as left:
        main("count", lambda config: {}, "Counts.")
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert "usage: python -m jobs.count" in message
    assert "--config" in last_line(message)


@pytest.mark.usefixtures("cluster")
def test_a_finished_stage_prints_its_counts_and_saves_them(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded("count", lambda config: {"items": 12_345, "seed": config.seed}, str(config_file), ["seed=7"]) == 0
    saved = json.loads((tmp_path / "run" / "summaries" / "count.json").read_text(encoding="utf-8"))
    assert {name: saved[name] for name in ("items", "seed")} == {"items": 12_345, "seed": 7}
    assert saved["seconds"] >= 0
    printed = capsys.readouterr().out
    assert printed.startswith("count: started\n== count\n")
    assert "   items    12,345\n" in printed


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("field a: b"), 2, "configuration: field a: b\n"),
        (ArtifactError("items/ has no manifest"), 3, "artifact: items/ has no manifest\n"),
    ],
)
def test_a_stage_that_refuses_says_why_and_saves_no_summary(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, code: int, message: str
) -> None:
    def refuse(config: Config) -> Summary:
        raise error

    assert guarded("refuse", refuse, str(config_file), []) == code
    assert capsys.readouterr().err == message
    assert not (tmp_path / "run" / "summaries").exists()


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (StorageError("cannot write x: No space left on device"), 1, "stop: cannot write x: No space left on device\n"),
        (KeyboardInterrupt(), 130, "stop: interrupted. Finished units are kept: the same command goes on from there\n"),
    ],
)
def test_a_stage_that_cannot_go_on_ends_in_one_line(
    config_file: Path, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str
) -> None:
    def stop(config: Config) -> Summary:
        raise error

    assert guarded("stop", stop, str(config_file), []) == code
    assert capsys.readouterr().err == message


@pytest.mark.usefixtures("cluster")
def test_a_second_driver_is_refused_by_name(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []

    def run(config: Config) -> Summary:
        codes.append(guarded("count", lambda config: {}, str(config_file), []))
        return {"items": 1}

    assert guarded("count", run, str(config_file), []) == 0
    assert codes == [1]
    assert f"another run of count in {config_file.parent / 'run'} is at work: process {os.getpid()} on" in (
        capsys.readouterr().err
    )


def test_a_root_that_is_a_file_is_one_sentence(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x", encoding="utf-8")
    result = job("jobs.ingest", "--config", str(config_file))
    assert result.returncode == 1
    assert last_line(result.stderr).startswith(f"ingest: cannot write {tmp_path / 'run'}")
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("error", "code"), [(ConfigError, 2), (ArtifactError, 3), (StorageError, 1)])
@pytest.mark.parametrize("place", ["constructor", "call"])
def test_a_refusal_of_a_worker_is_the_same_message_and_exit_code(
    config_file: Path, capsys: pytest.CaptureFixture[str], error: type[Exception], code: int, place: str
) -> None:
    class Refusing:
        def __init__(self) -> None:
            if place == "constructor":
                raise error("no such model: x")

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            raise error("no such model: x")

    def run(config: Config) -> Summary:
        run_units(UNITS, Refusing, (), WorkersConfig(count=1, cpus=0.5), "refusing")
        return {}

    assert guarded("refusing", run, str(config_file), []) == code
    kind = {1: "refusing", 2: "configuration", 3: "artifact"}[code]
    assert last_line(capsys.readouterr().err) == f"{kind}: no such model: x"


@pytest.mark.usefixtures("cluster")
def test_a_stage_that_breaks_is_not_taken_for_a_refusal(config_file: Path) -> None:
    def broken(config: Config) -> Summary:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        guarded("broken", broken, str(config_file), [])

    class Broken:
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            raise ZeroDivisionError("a bug")

    def run(config: Config) -> Summary:
        return {"units": run_units(UNITS, Broken, (), WorkersConfig(), "broken")}

    with pytest.raises(RayError, match="ZeroDivisionError: a bug"):
        guarded("broken", run, str(config_file), [])


@pytest.mark.usefixtures("cluster")
def test_main_passes_overrides_and_exits(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values: list[int] = []

    def run(config: Config) -> Summary:
        values.extend([config.seed, config.retrieval.top_k])
        return {"items": 1}

    arguments = ["--config", str(config_file), "--set", "seed=3", "--set", "retrieval.top_k=4"]
    monkeypatch.setattr(sys, "argv", ["jobs.count", *arguments])
    with pytest.raises(SystemExit) as left:
        main("count", run, "Counts.")
    assert left.value.code == 0
    assert values == [3, 4]


def test_the_table_aligns_its_columns() -> None:
    assert table("x", {"items": 1_000, "index": "Flat", "ms": 0.5}) == (
        "== x\n   items  1,000\n   index  Flat\n   ms     0.5"
    )


def work(stage: StageFolder, seconds: float, count: int = 2, together: int = 1) -> int:
    """Runs a stage whose workers leave `<unit>.<pid>.begun`, take `seconds` per unit, and commit a file.

    No unit ends before `together` processes have begun one: how long a process takes to start must not matter.
    """

    class Slow:  # a class of a function travels to the workers by value
        def __init__(self, stage: StageFolder, seconds: float) -> None:
            self.stage, self.seconds = stage, seconds

        def __call__(self, batch: dict[str, Any]) -> int:
            unit, inputs = str(batch["unit"][0]), str(batch["inputs"][0])
            (self.stage.path.parent / f"{unit}.{os.getpid()}.begun").touch()
            deadline = time.monotonic() + 120
            while len({p for _, p in begun(self.stage.path.parent)}) < together and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(self.seconds)
            (self.stage.path / f"{unit}.txt").write_text(f"{unit} made of {inputs}", encoding="utf-8")
            self.stage.commit(unit, inputs, {f"{unit}.txt": 1}, {"items": 1})
            return 1

    todo = [row for row in UNITS if row["unit"] not in stage.finished(INPUTS)]
    done = run_units(todo, Slow, (stage, seconds), WorkersConfig(count=count, cpus=0.5), "slow")
    stage.close(INPUTS)
    return done


def begun(folder: Path) -> list[tuple[str, int]]:
    """(unit, process) of every unit that was begun."""
    return [(path.name.split(".")[0], int(path.name.split(".")[1])) for path in folder.glob("*.begun")]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.usefixtures("cluster")
def test_units_run_once_each_over_the_workers_asked_for(tmp_path: Path) -> None:
    stage = StageFolder(tmp_path / "items", "slow", {})
    assert work(stage, 0.2, together=2) == len(UNITS)
    assert sorted(unit for unit, _ in begun(tmp_path)) == sorted(INPUTS)
    assert len({process for _, process in begun(tmp_path)}) == 2
    assert work(stage, 0) == 0  # the second run finds nothing to do


@pytest.mark.usefixtures("cluster")
def test_no_more_workers_start_than_there_are_units(tmp_path: Path) -> None:
    stage = StageFolder(tmp_path / "items", "slow", {})
    for row in UNITS[1:]:
        (stage.path / f"{row['unit']}.txt").touch()
        stage.commit(row["unit"], row["inputs"], {f"{row['unit']}.txt": 0}, {})
    assert work(stage, 0, count=4) == 1


def test_no_units_need_no_cluster() -> None:
    assert run_units([], object, (), WorkersConfig(), "nothing") == 0


@pytest.mark.usefixtures("cluster")
def test_a_worker_killed_in_the_middle_of_a_unit_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "calm").mkdir()
    (tmp_path / "killed").mkdir()
    calm = StageFolder(tmp_path / "calm" / "items", "slow", {})
    work(calm, 0)
    killed = StageFolder(tmp_path / "killed" / "items", "slow", {})
    victims: list[tuple[str, int]] = []

    def kill_the_first_at_work() -> None:
        while not (units := begun(tmp_path / "killed")):
            time.sleep(0.01)
        victims.append(units[0])
        os.kill(units[0][1], signal.SIGKILL)

    killer = threading.Thread(target=kill_the_first_at_work)
    killer.start()
    assert work(killed, 0.5) == len(UNITS)
    killer.join()
    ((unit, process),) = victims
    assert len([1 for u, p in begun(tmp_path / "killed") if u == unit and p != process]) == 1
    assert tree(killed.path) == tree(calm.path)


def test_the_configuration_file_of_these_tests_is_valid(config_file: Path) -> None:
    assert load_config(config_file).name == "small"


def test_lists_on_the_command_line_replace_fields_and_are_checked_like_them(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def called(*flags: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["jobs.evaluate", "--config", str(config_file), "--dry-run", *flags])
        with pytest.raises(SystemExit) as left:
            main("evaluate", lambda config: {}, "Evaluates.", lambda config: str(config.evaluation), FLAGS)
        return left.value.code, "".join(capsys.readouterr())  # type: ignore[return-value]

    code, output = called("--k", "1,30", "--knowledge-size", "5,all")
    assert code == 0
    assert "k=[1, 30] knowledge_sizes=[5, 'all']" in output
    for flag, field in (("--k=0", "evaluation.k.0"), ("--knowledge-size=5,some", "evaluation.knowledge_sizes.1.")):
        code, output = called(flag)
        assert code == 2
        assert field in output
