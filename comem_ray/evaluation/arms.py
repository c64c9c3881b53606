"""Arms: the ways in which every question is asked, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from comem_ray.config import EvaluationConfig
from comem_ray.prompts import Mode


@dataclass(frozen=True)
class Arm:
    """A mode with `k` items as they are retrieved; with `gold_position` (from 1), the right item is put there instead.

    `knowledge` is how many items retrieval sees; the name says it where arms differ in it (`sized`).
    """

    mode: Mode
    k: int
    gold_position: int | None = None
    knowledge: int | Literal["all"] = "all"
    sized: bool = False

    @property
    def name(self) -> str:
        if self.mode == "none":
            return "none"
        size = f", {self.knowledge} items" if self.sized else ""
        return f"{self.mode}, k={self.k}{size}" + (
            f", right item at {self.gold_position}" if self.gold_position else ""
        )

    def items(self, retrieved: Sequence[str], gold: Sequence[str]) -> list[str] | None:
        """The items before a question, best first; None for a forced place where no right item is known."""
        if self.mode == "none":
            return []
        if self.gold_position is None:
            return list(retrieved[: self.k])
        if not gold:
            return None
        others = [i for i in retrieved if i not in gold][: self.k - 1]
        return [*others[: self.gold_position - 1], gold[0], *others[self.gold_position - 1 :]]


def arms(config: EvaluationConfig) -> list[Arm]:
    """All arms of a configuration, in its order; `none` has no k and no knowledge, so it stands once.

    Forced places are tried among the largest knowledge alone.
    """
    sizes, sized = list(dict.fromkeys(config.knowledge_sizes)), len(set(config.knowledge_sizes)) > 1
    largest, found = largest_size(config), list[Arm]()
    for mode in config.modes:
        if mode == "none":
            found.append(Arm("none", 0, knowledge=largest))
        else:
            found += [Arm(mode, k, None, size, sized) for size in sizes for k in config.k]
    for mode in config.modes:
        if mode != "none":
            found += [Arm(mode, max(config.gold_positions), place, largest, sized) for place in config.gold_positions]
    return found


def largest_size(config: EvaluationConfig) -> int | Literal["all"]:
    """The largest of the knowledge sizes."""
    return max(config.knowledge_sizes, key=lambda size: float("inf") if size == "all" else size)
