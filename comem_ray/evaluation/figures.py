"""The figures of an evaluation: typed objects that report.json holds, and their computation from the predictions.

Scores, intervals and differences are in percent, times in milliseconds. Knows nothing of pages or files.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from comem_ray.evaluation.intervals import mcnemar, wilson
from comem_ray.evaluation.questions import EvaluationQuestion

Row = Mapping[str, Any]
"""A row of PREDICTION_SCHEMA or TIMES_SCHEMA (predictions.py)."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Share:
    """A mean score over `n` questions, with its 95% Wilson interval. All in percent but `n`."""

    score: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, scores: Sequence[float]) -> Share:
        """The share of scores in 0..1; those between 0 and 1 make the interval an approximation."""
        share = statistics.fmean(scores)
        low, high = wilson(share, len(scores))
        return cls(_percent(share), _percent(low), _percent(high), len(scores))


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
    `memory_against_rag` are named by their arm without its mode ("k=3"). `sources` has the official summaries of the
    tasks by the source's name, as plain JSON: {"benchmark", "official": {arm: summary}, "warnings", "questions",
    "left_out", "missing_images", "rejected"}.
    """

    questions: int
    arms: Mapping[str, ArmFigures]
    recall: Recall
    recall_by_knowledge: Mapping[int, Recall]
    memory_against_rag: Mapping[str, PairFigures]
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
            sources=data["sources"],
            missing_images=Faults(**data["missing_images"]),
            rejected=Faults(**data["rejected"]),
            memory_store=None if store is None else MemoryStoreSize.of(store),
        )


def _recall_to_json(recall: Recall) -> Json:
    return {f"@{k}": asdict(share) for k, share in recall.items()}


def _recall_from_json(data: Mapping[str, Any]) -> Recall:
    return {int(name.removeprefix("@")): Share(**share) for name, share in data.items()}


def compute_figures(
    questions: Sequence[EvaluationQuestion], predictions: Sequence[Row], times: Sequence[Row], ks: Sequence[int]
) -> EvaluationFigures:
    """Scores, tokens and times of every arm and its groups; recall for each of `ks`; memory against rag."""
    groups = {
        q.data_id: {"language": q.language, **({"source": q.source} if q.source else {}), **q.groups} for q in questions
    }
    arms, timed = _by_arm(predictions), _by_arm(times)
    by_knowledge = _recall_by_knowledge(arms, ks)
    return EvaluationFigures(
        questions=len(questions),
        arms={name: _arm(rows, timed.get(name, []), groups) for name, rows in arms.items()},
        recall=next(iter(by_knowledge.values()), {}),
        recall_by_knowledge={size: recall for size, recall in by_knowledge.items() if size},
        memory_against_rag=_pairs(arms),
    )


def _by_arm(rows: Sequence[Row]) -> dict[str, list[Row]]:
    arms: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        arms[row["arm"]].append(row)
    return dict(arms)


def _arm(rows: Sequence[Row], timed: Sequence[Row], groups: Mapping[str, Mapping[str, str]]) -> ArmFigures:
    answered = [row for row in rows if not row["fault"]]
    return ArmFigures(
        mode=rows[0]["mode"],
        k=rows[0]["k"],
        gold_position=rows[0]["gold_position"],
        knowledge=rows[0]["knowledge"],
        share=Share.of([row["score"] for row in rows]),
        unanswered=dict(sorted(Counter(row["fault"] for row in rows if row["fault"]).items())),
        prompt_tokens=_mean(answered, "prompt_tokens"),
        memory_vectors=_mean(answered, "memory_vectors"),
        first_token_ms=_median(timed, "first_token_ms"),
        answer_ms=_median(timed, "answer_ms"),
        groups=_groups(rows, groups),
    )


def _groups(rows: Sequence[Row], groups: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Share]]:
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, value in groups[row["data_id"]].items():
            scores[name][value].append(row["score"])
    return {name: {v: Share.of(s) for v, s in sorted(values.items())} for name, values in sorted(scores.items())}


def _recall_by_knowledge(arms: Mapping[str, Sequence[Row]], ks: Sequence[int]) -> dict[int, Recall]:
    """Recall by the number of items searched, the largest first; without what has no question of a known item."""
    rows_by_size = {rows[0]["knowledge"]: rows for rows in arms.values() if rows[0]["gold_position"] is None}
    recalls = {size: _recall(rows, ks) for size, rows in sorted(rows_by_size.items(), reverse=True)}
    return {size: recall for size, recall in recalls.items() if recall}


def _recall(rows: Sequence[Row], ks: Sequence[int]) -> Recall:
    ranks = [row["rank"] for row in rows if row["rank"] is not None]
    return {k: Share.of([float(0 < rank <= k) for rank in ranks]) for k in ks} if ranks else {}


def _pairs(arms: Mapping[str, Sequence[Row]]) -> dict[str, PairFigures]:
    names = [name for name in arms if name.startswith("memory") and _rag_of(name) in arms]
    return {name.removeprefix("memory, "): _pair(arms[name], arms[_rag_of(name)]) for name in names}


def _rag_of(name: str) -> str:
    """The arm in mode rag that has the items of an arm in mode memory."""
    return name.replace("memory", "rag", 1)


def _pair(memory_rows: Sequence[Row], rag_rows: Sequence[Row]) -> PairFigures:
    memory, rag = ({row["data_id"]: row["score"] for row in rows} for rows in (memory_rows, rag_rows))
    both = sorted(memory.keys() & rag.keys())
    difference = statistics.fmean(memory[i] - rag[i] for i in both)
    p = mcnemar([memory[i] >= 0.5 for i in both], [rag[i] >= 0.5 for i in both])
    return PairFigures(_percent(difference), round(p, 4), len(both))


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _mean(rows: Sequence[Row], name: str) -> float:
    return round(statistics.fmean(row[name] for row in rows), 1) if rows else 0.0


def _median(rows: Sequence[Row], name: str) -> float | None:
    return round(statistics.median(row[name] for row in rows), 1) if rows else None
