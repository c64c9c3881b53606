"""Arms: the ways in which every question is asked, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from comem_ray.config_evaluation import Evaluation
from comem_ray.prompts import Mode


@dataclass(frozen=True)
class Arm:
    """A mode with `k` items as they are retrieved; with `place` (from 1), the right item is put there instead.

    `knowledge` is how many items retrieval sees; the name says it where arms differ in it (`sized`).
    """

    mode: Mode
    k: int
    place: int | None = None
    knowledge: int | Literal["all"] = "all"
    sized: bool = False

    @property
    def name(self) -> str:
        if self.mode == "none":
            return "none"
        size = f", {self.knowledge} items" if self.sized else ""
        return f"{self.mode}, k={self.k}{size}" + (f", right item at {self.place}" if self.place else "")

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
            found += [Arm(mode, max(config.places), place, largest, sized) for place in config.places]
    return found


def largest_size(config: Evaluation) -> int | Literal["all"]:
    """The largest of the knowledge sizes."""
    return max(config.knowledge_sizes, key=lambda size: float("inf") if size == "all" else size)
