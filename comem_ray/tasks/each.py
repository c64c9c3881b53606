"""One outcome per question: where a batch fails, its questions are tried one by one, so that a bad one costs itself.

Knows no model and no task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ConfigError
from comem_ray.knowledge.images import ImageError

Input = TypeVar("Input")
Outcome = TypeVar("Outcome")

_DATA = (ValueError, LookupError)  # errors about what a question or an item holds


def for_each(
    function: Callable[[Sequence[Input]], Sequence[Outcome | Exception]], inputs: Sequence[Input]
) -> list[Outcome | Exception]:
    """What `function` makes of all inputs together, in order; where it fails, of each alone, or the error in its place.

    Raises what is not the fault of one input: ConfigError, ArtifactError, an error of the device, and an error that is
    not about data where several inputs all end with one.
    """
    try:
        return list(function(inputs))
    except (ConfigError, ArtifactError):
        raise
    except Exception as error:
        if _is_of_the_device(error):
            raise
        if len(inputs) == 1:
            return [error]
    outcomes = [for_each(function, [one])[0] for one in inputs]
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if len(errors) == len(inputs) and not any(isinstance(error, _DATA) for error in errors):
        raise errors[0]
    return outcomes


def reason_of(error: Exception, otherwise: str) -> str:
    """The code of an error: its own, "out_of_memory", or `otherwise`. An ImageError is that of an item here."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out_of_memory"
    reason = getattr(error, "reason", None)
    if not isinstance(reason, str):
        return otherwise
    return f"item_{reason}" if isinstance(error, ImageError) else reason


def detail_of(error: Exception) -> str:
    """What an error says, on one line; the name of its class where it says nothing."""
    lines = str(error).splitlines()
    return lines[0] if lines and lines[0].strip() else type(error).__name__


def _is_of_the_device(error: Exception) -> bool:
    """Whether every later call would fail too: a GPU that gave up. Being out of memory is not of these."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    gave_up = getattr(torch, "AcceleratorError", None)
    return (gave_up is not None and isinstance(error, gave_up)) or "CUDA error" in str(error)
