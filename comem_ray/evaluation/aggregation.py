"""Computes the figures of an evaluation from its predictions and times. Knows nothing of pages or files."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from comem_ray.evaluation.figures import ArmFigures, EvaluationFigures, HelpFigures, PairFigures, Recall, Share
from comem_ray.evaluation.intervals import mcnemar, wilson
from comem_ray.tasks.example import Example

Row = Mapping[str, Any]
"""A row of PREDICTION_SCHEMA or TIMES_SCHEMA (predictions.py), scored."""


def compute_figures(
    questions: Sequence[Example], predictions: Sequence[Row], times: Sequence[Row], ks: Sequence[int]
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
        against_none={name: _effect(rows, arms["none"]) for name, rows in arms.items() if name != "none"}
        if "none" in arms
        else {},
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
        share=_share([row["score"] for row in rows]),
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
    return {name: {v: _share(s) for v, s in sorted(values.items())} for name, values in sorted(scores.items())}


def _recall_by_knowledge(arms: Mapping[str, Sequence[Row]], ks: Sequence[int]) -> dict[int, Recall]:
    """Recall by the number of items searched, the largest first; without what has no question of a known item."""
    rows_by_size = {rows[0]["knowledge"]: rows for rows in arms.values() if rows[0]["gold_position"] is None}
    recalls = {size: _recall(rows, ks) for size, rows in sorted(rows_by_size.items(), reverse=True)}
    return {size: recall for size, recall in recalls.items() if recall}


def _recall(rows: Sequence[Row], ks: Sequence[int]) -> Recall:
    ranks = [row["rank"] for row in rows if row["rank"] is not None]
    return {k: _share([float(0 < rank <= k) for rank in ranks]) for k in ks} if ranks else {}


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


def _effect(rows: Sequence[Row], alone_rows: Sequence[Row]) -> HelpFigures:
    informed, alone = ({row["data_id"]: row["score"] >= 0.5 for row in some} for some in (rows, alone_rows))
    both = sorted(informed.keys() & alone.keys())
    help = sum(informed[i] and not alone[i] for i in both)
    harm = sum(alone[i] and not informed[i] for i in both)
    p = mcnemar([informed[i] for i in both], [alone[i] for i in both])
    return HelpFigures(help, harm, round(p, 4), len(both))


def _share(scores: Sequence[float]) -> Share:
    """The share of scores in 0..1. Scores between 0 and 1 make the interval an approximation."""
    share = statistics.fmean(scores)
    low, high = wilson(share, len(scores))
    return Share(_percent(share), _percent(low), _percent(high), len(scores))


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _mean(rows: Sequence[Row], name: str) -> float:
    return round(statistics.fmean(row[name] for row in rows), 1) if rows else 0.0


def _median(rows: Sequence[Row], name: str) -> float | None:
    return round(statistics.median(row[name] for row in rows), 1) if rows else None
