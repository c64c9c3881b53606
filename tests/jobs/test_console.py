"""Progress: a bar on a terminal, a few lines elsewhere; and what of Ray's own log reaches the console."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.console import LINES, Progress

REPOSITORY = Path(__file__).resolve().parents[2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 8, 1_000])
def test_elsewhere_it_is_a_few_lines_and_the_last_one_is_the_end(
    total: int, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress("embed_items", total)
    for _ in range(total):
        progress.advance()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == min(total, LINES)
    assert lines[-1] == f"embed_items: {total} of {total} units, 0 s"


def test_units_that_an_earlier_run_finished_count(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("train", 12, "steps", count=6)
    for _ in range(6):
        progress.advance()
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        "train: 9 of 12 steps",
        "train: 12 of 12 steps",
    ]


def test_on_a_terminal_it_is_one_line_that_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    progress = Progress("encode_memory", 4)
    progress.advance()
    progress.advance(3)
    first, second = screen.getvalue().split("\r")[1:]
    assert first.startswith("[#######                       ] encode_memory: 1 of 4 units, ")
    assert "\n" not in first
    assert second.startswith(f"[{'#' * 30}] encode_memory: 4 of 4 units, ")
    assert second.endswith("\n")


def test_warnings_reach_the_console_and_the_rest_does_not(tmp_path: Path) -> None:
    # In a process of its own: Ray's handler keeps the standard error of when it was imported.
    code = """
import logging
from jobs.console import quiet
mine = logging.StreamHandler(open("MINE", "w"))
logging.getLogger("ray.data").addHandler(mine)
quiet()
quiet()  # a second stage of the same process
log = logging.getLogger("ray.data.some_module")
log.info("execution finished")
log.warning("the cluster has no core left")
logging.getLogger("ray.data._internal.progress").warning("Progress bars disabled")
""".replace("MINE", str(tmp_path / "mine.log"))
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    output = result.stdout + result.stderr
    assert output.count("no core left") == 1
    assert "finished" not in output
    assert "disabled" not in output
    assert "finished" in (tmp_path / "mine.log").read_text()
