"""The figures of an evaluation: typed objects, and their form in report.json.

Scores, intervals and differences are in percent, times in milliseconds. aggregation.py computes them from predictions.
Knows nothing of pages or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Share:
    """A mean score over `n` questions, with its 95% Wilson interval. All in percent but `n`."""

    score: float
    low: float
    high: float
    n: int


Recall = Mapping[int, Share]
"""k -> share of the questions with a known right item that have it among the first k retrieved."""


@dataclass(frozen=True)
class ArmFigures:
    """The figures of one arm. Tokens and vectors are means of the answered questions, times are medians.

    `knowledge` is the number of items that retrieval searched, 0 in mode none. `unanswered` counts the questions that
    were not asked, by fault; they count as wrong. Times are None where no question was timed.
    """

    mode: str
    k: int
    gold_position: int | None
    knowledge: int
    share: Share
    unanswered: Mapping[str, int]
    prompt_tokens: float
    memory_vectors: float
    first_token_ms: float | None
    answer_ms: float | None
    groups: Mapping[str, Mapping[str, Share]]
    """Name of a group (language, source, ...) -> its value -> the share of its questions."""

    def to_json(self) -> Json:
        """The arm as report.json has it: the fields of `share` stand among the others."""
        fields = asdict(self)
        return {**fields.pop("share"), **fields}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArmFigures:
        """The arm that `to_json` wrote."""
        groups = {
            name: {value: Share(**share) for value, share in values.items()} for name, values in data["groups"].items()
        }
        share = Share(**{name: data[name] for name in ("score", "low", "high", "n")})
        rest = {name: value for name, value in data.items() if name not in asdict(share)}
        return cls(**{**rest, "share": share, "groups": groups})


@dataclass(frozen=True)
class PairFigures:
    """Memory against rag on the same questions with the same items: memory's score minus rag's, in points."""

    difference: float
    mcnemar_p: float
    n: int


@dataclass(frozen=True)
class HelpFigures:
    """An arm with knowledge against the model alone, on the same questions. A score of one half or more is right."""

    help: int  # questions right only with knowledge
    harm: int  # questions right only without
    mcnemar_p: float
    n: int


@dataclass(frozen=True)
class Faults:
    """Questions without an image, or rows of files that make no question: their count, and the first with reasons."""

    count: int = 0
    first: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class MemoryStoreSize:
    """What the finished memory store holds."""

    items: int
    bytes: int
    bytes_per_item: float

    @classmethod
    def of(cls, size: Mapping[str, float]) -> MemoryStoreSize:
        """The size that memory_store.store_bytes gives."""
        return cls(int(size["items"]), int(size["bytes"]), size["bytes_per_item"])


@dataclass(frozen=True)
class EvaluationFigures:
    """All figures of an evaluation, as report.json holds them.

    `recall` is that among the largest number of items searched; `recall_by_knowledge` has every number. The pairs of
    `memory_against_rag` are named by their arm without its mode ("k=3"). `against_none` has every arm with knowledge,
    where mode none was evaluated too. `sources` has the official summaries of the tasks by the source's name, as plain
    JSON: {"task", "official": {arm: summary}, "paper_rules", "warnings", "questions", "left_out", "missing_images",
    "rejected"}.
    """

    questions: int
    arms: Mapping[str, ArmFigures]
    recall: Recall
    recall_by_knowledge: Mapping[int, Recall]
    memory_against_rag: Mapping[str, PairFigures]
    against_none: Mapping[str, HelpFigures] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    missing_images: Faults = field(default_factory=Faults)
    rejected: Faults = field(default_factory=Faults)
    memory_store: MemoryStoreSize | None = None

    def to_json(self) -> Json:
        """The content of report.json."""
        return {
            "questions": self.questions,
            "arms": {name: arm.to_json() for name, arm in self.arms.items()},
            "recall": _recall_to_json(self.recall),
            "recall_by_knowledge": {str(n): _recall_to_json(r) for n, r in self.recall_by_knowledge.items()},
            "memory_against_rag": {name: asdict(pair) for name, pair in self.memory_against_rag.items()},
            "against_none": {name: asdict(effect) for name, effect in self.against_none.items()},
            "sources": dict(self.sources),
            "missing_images": asdict(self.missing_images),
            "rejected": asdict(self.rejected),
            "memory_store": None if self.memory_store is None else asdict(self.memory_store),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EvaluationFigures:
        """The figures that `to_json` wrote."""
        store = data["memory_store"]
        return cls(
            questions=data["questions"],
            arms={name: ArmFigures.from_json(arm) for name, arm in data["arms"].items()},
            recall=_recall_from_json(data["recall"]),
            recall_by_knowledge={int(n): _recall_from_json(r) for n, r in data["recall_by_knowledge"].items()},
            memory_against_rag={name: PairFigures(**pair) for name, pair in data["memory_against_rag"].items()},
            against_none={name: HelpFigures(**effect) for name, effect in data.get("against_none", {}).items()},
            sources=data["sources"],
            missing_images=Faults(**data["missing_images"]),
            rejected=Faults(**data["rejected"]),
            memory_store=None if store is None else MemoryStoreSize.of(store),
        )


def _recall_to_json(recall: Recall) -> Json:
    return {f"@{k}": asdict(share) for k, share in recall.items()}


def _recall_from_json(data: Mapping[str, Any]) -> Recall:
    return {int(name.removeprefix("@")): Share(**share) for name, share in data.items()}
