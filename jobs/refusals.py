"""A refusal (ConfigError, ArtifactError, StorageError) of a worker travels as a value, and the driver raises it again.

As an exception it would arrive as text only: Ray wraps what a worker raises, and keeps of a constructor's error no more
than the traceback. A refusal also needs no second try. Knows nothing of what workers do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from comem_ray.artifacts import ArtifactError, StorageError
from comem_ray.config import ConfigError

COLUMN = "refusal"  # of a row that a worker returns; empty where it did not refuse
COUNT = "count"  # of a row that a worker returns: what its call returned, 0 where that was nothing
REFUSALS = (ConfigError, ArtifactError, StorageError)


def to_text(error: Exception) -> str:
    """A refusal as a text that `raise_refusal` understands."""
    number = next(n for n, type in enumerate(REFUSALS) if isinstance(error, type))
    return json.dumps([number, str(error)])


def refusal_of(call: Callable[[], object]) -> str:
    """Calls `call`; returns its refusal as text, or "" where it has none. Other exceptions pass."""
    try:
        call()
    except REFUSALS as error:
        return to_text(error)
    return ""


def raise_refusal(text: str) -> None:
    """Raises the refusal that `text` holds, with its own type; does nothing where it is empty."""
    if text:
        number, message = json.loads(text)
        raise REFUSALS[number](message)


def returns_refusals(worker: type) -> type:
    """The actor class `worker`, whose rows are {COLUMN: refusal} of its constructor or its call, and {COUNT: number}.

    It keeps the class's name, by which Ray names processes and dashboards.
    """

    class Worker:
        def __init__(self, *arguments: Any):
            self.refusal = ""
            try:
                self.worker = worker(*arguments)
            except REFUSALS as error:
                self.refusal = to_text(error)

        def __call__(self, batch: Any) -> dict[str, list[Any]]:
            count = 0

            def work() -> None:
                nonlocal count
                count = self.worker(batch)

            refusal = self.refusal or refusal_of(work)
            return {COLUMN: [refusal], COUNT: [count if isinstance(count, int) else 0]}

    Worker.__name__ = Worker.__qualname__ = worker.__name__
    return Worker
