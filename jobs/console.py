"""What a person sees of a run: the start of a stage, its progress, and nothing of Ray's own log but warnings.

A terminal gets a bar that moves; a file, or the client of `ray job submit`, gets at most LINES lines.
"""

from __future__ import annotations

import logging
import sys
import time

import ray.data

LINES = 4  # of progress where standard output is not a terminal
BAR = 30  # characters


class Progress:
    """Counts finished units of a stage and says so: "encode_memory: 3 of 8 units, 12 s"."""

    def __init__(self, name: str, total: int, noun: str = "units", count: int = 0, lines: int = LINES):
        self.name, self.total, self.noun, self.count, self.lines = name, total, noun, count, lines
        self._start = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Adds finished units and shows where that leads."""
        before, self.count = self.count, self.count + count
        if sys.stdout.isatty():
            self._draw()
        elif before * self.lines // self.total < self.count * self.lines // self.total:
            print(self, flush=True)

    def __str__(self) -> str:
        return f"{self.name}: {self.count} of {self.total} {self.noun}, {time.monotonic() - self._start:.0f} s"

    def _draw(self) -> None:
        filled = BAR * self.count // self.total
        end = "\n" if self.count >= self.total else ""
        print(f"\r[{'#' * filled}{' ' * (BAR - filled)}] {self}", end=end, flush=True)


class _Chatter(logging.Filter):
    """Keeps back what Ray Data says of its own doings, and that its progress bars are off."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING and not record.name.startswith("ray.data._internal.progress")


def quiet() -> None:
    """Keeps the log of Ray Data off the console, warnings apart. Its files keep all of it."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:  # whoever added one of his own gets everything
        if handler.name == "console" and not any(isinstance(f, _Chatter) for f in handler.filters):
            handler.addFilter(_Chatter())
