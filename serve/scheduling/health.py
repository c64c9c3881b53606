"""Whether a replica's model still works, found out by a check that is known to pass on one that does.

A GPU in error never recovers within its process. So a replica whose checks fail in a row says that it is unhealthy, and
Serve starts another.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable

log = logging.getLogger("ray.serve")  # its records carry the request id

FAILURES_UNHEALTHY = 3  # checks that fail in a row


class ReplicaHealth:
    """Counts failures of `check()`, the smallest work that the model does."""

    def __init__(self, check: Callable[[], object]):
        self._check, self._failures = check, 0

    def works(self) -> None:
        """The model has just done some work."""
        self._failures = 0

    def doubt(self) -> None:
        """Tries the check: a request failed that was alone. Runs in the model's thread."""
        try:
            free_memory()
            self._check()
            self._failures = 0
        except Exception:
            self._failures += 1
            log.exception("the check of this replica's model failed (%d in a row)", self._failures)

    def require(self) -> None:
        """Raises RuntimeError where the last checks all failed."""
        if self._failures >= FAILURES_UNHEALTHY:
            raise RuntimeError(f"the last {self._failures} checks of the model failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, by what PyTorch (GPU or CPU), NumPy and FAISS raise."""
    names = {cls.__name__ for cls in type(error).__mro__}
    text = str(error)
    return bool(names & {"OutOfMemoryError", "MemoryError"}) or (
        isinstance(error, RuntimeError)
        and any(t in text for t in ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc"))
    )


def free_memory() -> None:
    """Gives back what a failed batch held, on the GPU too."""
    gc.collect()
    torch = sys.modules.get("torch")  # a process that has not imported it holds nothing there
    if torch is not None and torch.cuda.is_available():
        try:
            torch.cuda.empty_cache()
        except RuntimeError:  # a GPU in error: the check says so
            log.warning("the GPU does not give memory back")
