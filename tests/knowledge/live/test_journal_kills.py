"""kill -9 of a process that writes to the journal: nothing acknowledged is lost, nothing is there that was not sent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.journal_kills import Killer
from benchmarks.journal_writer import Write, live_item
from comem_ray.knowledge.live.journal import Journal

ITEM = f"{7:024x}"


def test_kills_lose_nothing(tmp_path: Path) -> None:
    """In a process of its own, for it forks."""
    command = [sys.executable, "-m", "benchmarks.journal_kills", "--kills", "15", "--folder", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    figures = json.loads(ended.stdout[ended.stdout.index("{") :])
    assert figures["kills"] == 15
    assert figures["acknowledged"] > 30
    assert (figures["lost"], figures["phantom"], figures["torn"], figures["faults"]) == (0, 0, 0, [])


@pytest.mark.parametrize(
    ("stored", "sent", "done", "faults"),
    [
        ([Write([(ITEM, 1)], [], None)], {1: Write([(ITEM, 1)], [], None)}, {1: 1}, (0, 0, 0)),
        ([Write([(ITEM, 1)], [], None)], {1: Write([(ITEM, 1)], [], None)}, {}, (0, 0, 0)),
        ([], {1: Write([(ITEM, 1)], [], None)}, {}, (0, 0, 0)),
        ([], {1: Write([(ITEM, 1)], [], None)}, {1: 1}, (1, 0, 0)),
        ([], {1: Write([], [ITEM], None)}, {1: 1}, (1, 0, 0)),
        ([Write([(ITEM, 1)], [], None)], {}, {}, (0, 1, 0)),
        ([Write([(ITEM, 2)], [], None)], {1: Write([(ITEM, 1)], [], None)}, {1: 1}, (0, 1, 0)),
        ([Write([(ITEM, 1)], [], None)], {1: Write([(ITEM, 1)], ["f" * 24], None)}, {}, (0, 0, 1)),
        ([], {1: Write([], [], "key")}, {1: 0}, (1, 0, 0)),
        ([Write([], [], "key")], {}, {}, (0, 1, 0)),
    ],
)
def test_what_is_lost_phantom_or_torn_is_counted(tmp_path, stored, sent, done, faults):
    journal = Journal(tmp_path / "live")
    for write in stored:
        journal.write([live_item(*put) for put in write.puts], write.deletes, write.key, "request")
    journal.close()
    killer = Killer(tmp_path / "live", seed=0)
    killer._seq = -1  # an empty write is acknowledged at 0
    killer._check(sent, {n: {"seq": seq, "repeated": False} for n, seq in done.items()}, prune=False)
    figures = killer.figures
    assert (figures.lost, figures.phantom, figures.torn) == faults
    assert bool(figures.faults) == any(faults)
