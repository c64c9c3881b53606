"""Arms: the ways in which every question is asked, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from comem_ray.config_evaluation import Evaluation
from comem_ray.prompts import Mode


@dataclass(frozen=True)
class Arm:
    """A mode with `k` items as they are retrieved; with `place` (from 1), the right item is put there instead."""

    mode: Mode
    k: int
    place: int | None = None

    @property
    def name(self) -> str:
        if self.mode == "none":
            return "none"
        return f"{self.mode}, k={self.k}" + (f", right item at {self.place}" if self.place else "")

    def items(self, retrieved: Sequence[str], gold: Sequence[str]) -> list[str] | None:
        """The items before a question, best first; None for a forced place where no right item is known."""
        if self.mode == "none":
            return []
        if self.place is None:
            return list(retrieved[: self.k])
        if not gold:
            return None
        others = [i for i in retrieved if i not in gold][: self.k - 1]
        return [*others[: self.place - 1], gold[0], *others[self.place - 1 :]]


def arms(config: Evaluation) -> list[Arm]:
    """All arms of a configuration, in its order; `none` has no k, so it stands once."""
    found: list[Arm] = []
    for mode in config.modes:
        found += [Arm("none", 0)] if mode == "none" else [Arm(mode, k) for k in config.k]
    for mode in config.modes:
        if mode != "none":
            found += [Arm(mode, max(config.places), place) for place in config.places]
    return found
