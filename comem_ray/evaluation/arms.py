"""Arms: the ways in which every question is asked, to be compared with one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from comem_ray.config import EvaluationConfig
from comem_ray.prompts import Mode


@dataclass(frozen=True)
class Arm:
    """A mode with `k` retrieved items. With `gold_position` (from 1), the right item is put at that position.

    `knowledge` is how many items retrieval searches. The name states it if `sized`: where arms differ in it.
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
        position = f", right item at {self.gold_position}" if self.gold_position else ""
        return f"{self.mode}, k={self.k}{size}{position}"

    def items(self, retrieved: Sequence[str], gold: Sequence[str]) -> list[str] | None:
        """Ids of the items of the prompt, best first; None for a gold position where no right item is known."""
        if self.mode == "none":
            return []
        if self.gold_position is None:
            return list(retrieved[: self.k])
        if not gold:
            return None
        others = [i for i in retrieved if i not in gold][: self.k - 1]
        return [*others[: self.gold_position - 1], gold[0], *others[self.gold_position - 1 :]]


def arms(config: EvaluationConfig) -> list[Arm]:
    """All arms of a configuration, in its order. Mode none has neither k nor knowledge, so it is one arm.

    The arms with a gold position come last, with the largest knowledge alone.
    """
    largest, sized = largest_size(config), len(set(config.knowledge_sizes)) > 1
    sizes = list(dict.fromkeys(config.knowledge_sizes))
    plain = list[Arm]()
    for mode in config.modes:
        if mode == "none":
            plain.append(Arm("none", 0, knowledge=largest))
        else:
            plain += [Arm(mode, k, None, size, sized) for size in sizes for k in config.k]
    k = max(config.gold_positions, default=0)
    modes = [mode for mode in config.modes if mode != "none"]
    return plain + [Arm(mode, k, position, largest, sized) for mode in modes for position in config.gold_positions]


def largest_size(config: EvaluationConfig) -> int | Literal["all"]:
    """The largest of the knowledge sizes."""
    return max(config.knowledge_sizes, key=lambda size: float("inf") if size == "all" else size)
