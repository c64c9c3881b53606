"""The figures of an evaluation: a dictionary for machines, tables in markdown for people."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from comem_ray.evaluation.intervals import mcnemar, wilson
from comem_ray.evaluation.questions import EvaluationQuestion

Row = Mapping[str, Any]


def figures(
    questions: Sequence[EvaluationQuestion], predictions: Sequence[Row], times: Sequence[Row], ks: Sequence[int]
) -> dict[str, Any]:
    """Score, tokens and times of every arm and of the groups in it; recall@k; memory against rag, pair by pair."""
    groups = {
        q.data_id: {"language": q.language, **({"source": q.source} if q.source else {}), **q.groups} for q in questions
    }
    arms: dict[str, list[Row]] = defaultdict(list)
    for row in predictions:
        arms[row["arm"]].append(row)
    timed: dict[str, list[Row]] = defaultdict(list)
    for row in times:
        timed[row["arm"]].append(row)
    return {
        "questions": len(questions),
        "arms": {name: _arm(rows, timed[name], groups) for name, rows in arms.items()},
        **_recalls(arms, ks),
        "memory_against_rag": _pairs(arms),
    }


def _arm(rows: Sequence[Row], timed: Sequence[Row], groups: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    parts: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, value in groups[row["data_id"]].items():
            parts[name][value].append(row["score"])
    answered = [row for row in rows if not row.get("fault")]
    return {
        **{name: rows[0].get(name) for name in ("mode", "k", "gold_position", "knowledge")},
        **_share([row["score"] for row in rows]),
        "unanswered": dict(sorted(Counter(row["fault"] for row in rows if row.get("fault")).items())),
        "prompt_tokens": _mean(answered, "prompt_tokens"),
        "memory_vectors": _mean(answered, "memory_vectors"),
        "first_token_ms": _median(timed, "first_token_ms"),
        "answer_ms": _median(timed, "answer_ms"),
        "groups": {n: {v: _share(s) for v, s in sorted(values.items())} for n, values in sorted(parts.items())},
    }


def _share(scores: Sequence[float]) -> dict[str, float]:
    """Mean score in percent with its interval. Scores between 0 and 1 make the interval an approximation."""
    share = statistics.fmean(scores)
    low, high = wilson(share, len(scores))
    return {"score": _percent(share), "low": _percent(low), "high": _percent(high), "n": len(scores)}


def _recalls(arms: Mapping[str, Sequence[Row]], ks: Sequence[int]) -> dict[str, Any]:
    """Recall among the most items that an arm searched, and among every other number of them."""
    by_size = {rows[0].get("knowledge") or 0: rows for rows in arms.values() if rows[0].get("gold_position") is None}
    found = {size: recall for size, rows in sorted(by_size.items(), reverse=True) if (recall := _recall(rows, ks))}
    searched = {str(size): recall for size, recall in found.items() if size}
    return {"recall": next(iter(found.values()), {}), "recall_by_knowledge": searched}


def _recall(rows: Sequence[Row], ks: Sequence[int]) -> dict[str, dict[str, float]]:
    ranks = [row["rank"] for row in rows if row["rank"] is not None]
    return {f"@{k}": _share([float(0 < rank <= k) for rank in ranks]) for k in ks} if ranks else {}


def _pairs(arms: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, float]]:
    found = {}
    for name, rows in arms.items():
        other = name.replace("memory", "rag", 1)
        if not name.startswith("memory") or other not in arms:
            continue
        mine, theirs = ({r["data_id"]: r["score"] for r in some} for some in (rows, arms[other]))
        both = sorted(mine.keys() & theirs.keys())
        gain = statistics.fmean(mine[i] - theirs[i] for i in both)
        p = mcnemar([mine[i] >= 0.5 for i in both], [theirs[i] >= 0.5 for i in both])
        found[name.removeprefix("memory, ")] = {"difference": _percent(gain), "mcnemar_p": round(p, 4), "n": len(both)}
    return found


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _mean(rows: Sequence[Row], name: str) -> float:
    return round(statistics.fmean(row[name] for row in rows), 1) if rows else 0.0


def _median(rows: Sequence[Row], name: str) -> float | None:
    return round(statistics.median(row[name] for row in rows), 1) if rows else None


def markdown(found: Mapping[str, Any]) -> str:
    """The figures as tables."""
    head = "| arm | right, % (95% interval) | n | prompt tokens | memory vectors | first token, ms | answer, ms |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for name, arm in found["arms"].items():
        cells = [arm[c] for c in ("n", "prompt_tokens", "memory_vectors", "first_token_ms", "answer_ms")]
        lines.append(f"| {name} | {_said(arm)} | " + " | ".join("" if c is None else str(c) for c in cells) + " |")
    if found["recall"]:
        lines += ["", "| right item among the first | % (95% interval) | n |", "|---|---|---|"]
        lines += [f"| {k.removeprefix('@')} | {_said(r)} | {r['n']} |" for k, r in found["recall"].items()]
    if len(found["recall_by_knowledge"]) > 1:
        lines += ["", "| right item among the first, of so many items | % (95% interval) | n |", "|---|---|---|"]
        lines += [
            f"| {k.removeprefix('@')} of {int(size):,} | {_said(share)} | {share['n']} |"
            for size, recall in found["recall_by_knowledge"].items()
            for k, share in recall.items()
        ]
    if unanswered := [
        (name, fault, n) for name, arm in found["arms"].items() for fault, n in arm["unanswered"].items()
    ]:
        lines += ["", "| arm | not asked, counted as wrong | questions |", "|---|---|---|"]
        lines += [f"| {name} | {fault} | {n} |" for name, fault, n in unanswered]
    if found["memory_against_rag"]:
        lines += ["", "| memory less rag | points | p (McNemar) | n |", "|---|---|---|---|"]
        lines += [
            f"| {name} | {pair['difference']:+.1f} | {pair['mcnemar_p']:.3g} | {pair['n']} |"
            for name, pair in found["memory_against_rag"].items()
        ]
    for name in next(iter(found["arms"].values()))["groups"] if found["arms"] else []:
        lines += ["", *_group(name, found["arms"])]
    return "\n".join(lines)


def _group(name: str, arms: Mapping[str, Any]) -> list[str]:
    values = sorted({v for arm in arms.values() for v in arm["groups"].get(name, {})})
    lines = [f"| by {name} | " + " | ".join(values) + " |", "|---" * (len(values) + 1) + "|"]
    for arm_name, arm in arms.items():
        parts = arm["groups"].get(name, {})
        cells = [f"{parts[v]['score']:.1f} ({parts[v]['n']})" if v in parts else "" for v in values]
        lines.append(f"| {arm_name} | " + " | ".join(cells) + " |")
    return lines


def _said(share: Mapping[str, float]) -> str:
    return f"{share['score']:.1f} ({share['low']:.1f} to {share['high']:.1f})"
