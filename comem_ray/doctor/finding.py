"""One thing that was looked at: whether it is there and right, in one sentence, with its figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "missing", "wrong", "note"]


@dataclass(frozen=True)
class Finding:
    """`missing` and `wrong` are faults; a `note` is for the reader and no fault. `facts` are for --json."""

    part: str  # what it belongs to: a source of the evaluation, "run", "models", ...
    name: str
    status: Status
    detail: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_fault(self) -> bool:
        """Whether something has to be done."""
        return self.status in ("missing", "wrong")
