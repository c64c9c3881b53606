"""A refusal (ConfigError, ArtifactError) of a worker travels to the driver as a value and is raised there again.

As an exception it would arrive as text only: Ray wraps what a worker raises, and keeps of a constructor's error no more
than the traceback. A refusal also needs no second try. Knows nothing of what workers do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ConfigError

COLUMN = "refusal"  # of a row that a worker returns; empty where it did not refuse
_TYPES: dict[str, type[ValueError]] = {"ConfigError": ConfigError, "ArtifactError": ArtifactError}


def to_text(error: ConfigError | ArtifactError) -> str:
    """A refusal as a text that `raise_refusal` understands."""
    name = next(name for name, type in _TYPES.items() if isinstance(error, type))
    return json.dumps([name, str(error)])


def refusal_of(call: Callable[[], object]) -> str:
    """Calls `call`; returns its refusal as text, or "" where it has none. Other exceptions pass."""
    try:
        call()
    except (ConfigError, ArtifactError) as error:
        return to_text(error)
    return ""


def raise_refusal(text: str) -> None:
    """Raises the refusal that `text` holds, with its own type; does nothing where it is empty."""
    if text:
        name, message = json.loads(text)
        raise _TYPES[name](message)


def returns_refusals(worker: type) -> type:
    """The actor class `worker`, whose rows are {COLUMN: refusal} of its constructor or its call.

    It keeps the class's name, by which Ray names processes and dashboards.
    """

    class Worker:
        def __init__(self, *arguments: Any):
            self.refusal = ""
            try:
                self.worker = worker(*arguments)
            except (ConfigError, ArtifactError) as error:
                self.refusal = to_text(error)

        def __call__(self, batch: Any) -> dict[str, list[str]]:
            return {COLUMN: [self.refusal or refusal_of(lambda: self.worker(batch))]}

    Worker.__name__ = Worker.__qualname__ = worker.__name__
    return Worker
