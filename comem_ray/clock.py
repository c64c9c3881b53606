"""Milliseconds per stage of a request, by name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._ms[name] = _ms(start)

    def seconds(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._start

    def timings(self) -> dict[str, float]:
        """Milliseconds of each stage so far, and of all the time since the clock was made (`total`)."""
        return {**self._ms, "total": _ms(self._start)}


def _ms(start: float) -> float:
    return round((time.perf_counter() - start) * 1e3, 2)
