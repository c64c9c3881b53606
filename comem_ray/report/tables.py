"""The figures of an evaluation as tables of a page: arms, pairs, recall, what was not asked, groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from comem_ray.evaluation.figures import ArmFigures, EvaluationFigures, PairFigures, Recall, Share
from comem_ray.prompts import MODES
from comem_ray.report.official import official_tables
from comem_ray.report.page import Table

Arms = Mapping[str, ArmFigures]
"""Name -> figures of an arm."""


def in_order(arms: Arms) -> dict[str, ArmFigures]:
    """By mode, size of the knowledge base and k; the arms with a gold position last."""

    def order(entry: tuple[str, ArmFigures]) -> tuple[Any, ...]:
        arm = entry[1]
        placed = arm.gold_position is not None
        return placed, MODES.index(arm.mode), arm.knowledge, arm.k, arm.gold_position or 0

    return dict(sorted(arms.items(), key=order))


def searching_most(arms: Arms) -> list[ArmFigures]:
    """The arms that have the items as retrieved from the largest knowledge base; and mode none."""
    largest = max((arm.knowledge for arm in arms.values()), default=0)
    return [
        arm for arm in arms.values() if arm.gold_position is None and (arm.mode == "none" or arm.knowledge == largest)
    ]


def best(arms: Arms) -> dict[str, ArmFigures]:
    """The best arm of each mode, of those in `searching_most`."""
    chosen: dict[str, ArmFigures] = {}
    for arm in searching_most(arms):
        if arm.mode not in chosen or arm.share.score > chosen[arm.mode].share.score:
            chosen[arm.mode] = arm
    return chosen


def tiles(arms: Arms) -> list[dict[str, str]]:
    """The best arm of each mode, for the top of the page."""
    return [
        {
            "mode": mode,
            "name": mode if mode == "none" else f"{mode}, k={arm.k}",
            "score": f"{arm.share.score:.1f}%",
            "interval": f"95% interval {format_interval(arm.share)}, n = {arm.share.n:,}",
            "cost": f"{arm.prompt_tokens:g} prompt tokens" + _vectors(arm),
        }
        for mode, arm in best(arms).items()
    ]


def _vectors(arm: ArmFigures) -> str:
    return f" + {arm.memory_vectors:g} memory vectors" if arm.memory_vectors else ""


def headline(figures: EvaluationFigures, arms: Arms) -> str:
    """What the tiles are, and the gain of memory over rag, in two sentences."""
    ks = sorted({arm.k for arm in arms.values() if arm.mode != "none" and arm.gold_position is None})
    choice = f", each with the best k of {', '.join(map(str, ks))}" if len(ks) > 1 else ""
    text = f"Right answers to {figures.questions:,} questions, by mode{choice}."
    memory = best(arms).get("memory")
    name = next((n.removeprefix("memory, ") for n, arm in arms.items() if arm is memory), "")
    pair = figures.memory_against_rag.get(name)
    if pair is None:
        return text
    p = _probability(pair.mcnemar_p)
    return f"{text} Memory minus rag at {name}: {pair.difference:+.1f} points (McNemar's test: p = {p})."


def format_interval(share: Share) -> str:
    """The interval of a share: "40.0 to 60.0"."""
    return f"{share.low:.1f} to {share.high:.1f}"


def tables(figures: EvaluationFigures, arms: Arms) -> list[Table]:
    """All tables but those of the groups, which `group_tables` has."""
    first = [_arms(arms), *_pairs(figures.memory_against_rag, arms), *_effects(figures)]
    first += _recall(figures.recall, "Recall of retrieval")
    if len(figures.recall_by_knowledge) > 1:
        for size, recall in sorted(figures.recall_by_knowledge.items()):
            first += _recall(recall, f"Recall of retrieval among {size:,} items")
    return [*first, *_unanswered(arms), *official_tables(figures, list(arms))]


def _arms(arms: Arms) -> Table:
    head = ["arm", "right, %", "95% interval", "questions", "items searched"]
    head += ["prompt tokens", "memory vectors", "first token, ms", "answer, ms"]
    rows = []
    for name, arm in arms.items():
        share, searched = arm.share, f"{arm.knowledge:,}" if arm.knowledge else ""
        numbers = (arm.prompt_tokens, arm.memory_vectors, arm.first_token_ms, arm.answer_ms)
        rows.append(
            [name, f"{share.score:.1f}", format_interval(share), f"{share.n:,}", searched, *map(_number, numbers)]
        )
    note = (
        "Mean score by the task's own rule, with its Wilson interval. Tokens and vectors are means. Times are medians: "
        "some questions were asked once more, one at a time, with memory from the store. In an arm with the right item "
        "at a position, that item is put there among the nearest other items. Such an arm leaves out the questions "
        "whose right item is not known."
    )
    return Table("Every arm", head, rows, note)


def _number(value: float | None) -> str:
    """Up to four digits; none where there is no value."""
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}" if value < 1000 else f"{value:,.1f}"


def _pairs(pairs: Mapping[str, PairFigures], arms: Arms) -> list[Table]:
    names = [name for arm in arms if (name := arm.removeprefix("memory, ")) in pairs and name != arm]
    rows = [[n, f"{pairs[n].difference:+.1f}", _probability(pairs[n].mcnemar_p), f"{pairs[n].n:,}"] for n in names]
    note = (
        "Both modes answer the same questions with the same items. A score of one half or more counts as right. p is "
        "that of McNemar's exact two-sided test: how often a difference as large as this one would come about by "
        "chance if both modes were equally good."
    )
    return [Table("Memory minus rag", ["arm", "points", "p", "questions"], rows, note)] if rows else []


def _effects(figures: EvaluationFigures) -> list[Table]:
    rows = [
        [name, f"{e.help:,}", f"{e.harm:,}", _probability(e.mcnemar_p), f"{e.n:,}"]
        for name, e in figures.against_none.items()
    ]
    note = (
        "Help: questions that are right only with the knowledge. Harm: questions that are right only without it. p is "
        "that of McNemar's exact two-sided test of the two numbers."
    )
    return [Table("Help and harm", ["arm", "help", "harm", "p", "questions"], rows, note)] if rows else []


def _probability(p: float) -> str:
    return f"{p:.3g}" if p else "< 0.0001"  # report.json has four decimals


def _recall(recall: Recall, caption: str) -> list[Table]:
    rows = [[f"@{k}", f"{r.score:.1f}", format_interval(r), f"{r.n:,}"] for k, r in sorted(recall.items())]
    note = "Questions whose right item is among the first k retrieved, of all questions whose right item is known."
    return [Table(caption, ["k", "%", "95% interval", "questions"], rows, note)] if rows else []


def _unanswered(arms: Arms) -> list[Table]:
    """How many questions of each arm were not asked, one column per fault."""
    faults = sorted({fault for arm in arms.values() for fault in arm.unanswered})
    counts = {name: arm.unanswered for name, arm in arms.items() if arm.unanswered}
    rows = [[name, *(f"{of_arm.get(fault, 0):,}" for fault in faults)] for name, of_arm in counts.items()]
    head = ["arm", *(fault.replace("_", " ") for fault in faults)]
    note = "These questions have no answer in the arm and count as wrong there."
    return [Table("Questions not asked", head, rows, note)] if rows else []


def group_tables(arms: Arms) -> list[Table]:
    """One table per group (language, kind of question, ...) of several values: rows are values, columns are arms."""
    names = sorted({name for arm in arms.values() for name in arm.groups})
    return [table for name in names if len((table := _group(name, arms)).rows) > 1]


def _group(name: str, arms: Arms) -> Table:
    groups = [arm.groups.get(name, {}) for arm in arms.values()]
    rows = []
    for value in sorted({value for group in groups for value in group}):
        n = max(group[value].n for group in groups if value in group)
        rows.append([value, f"{n:,}", *(_share(group.get(value)) for group in groups)])
    return Table(f"By {name}: right, %, and 95% interval", [name, "questions", *arms], rows)


def _share(share: Share | None) -> str:
    if share is None:
        return ""
    return Markup("{:.1f}<br><small>{:.0f} to {:.0f}</small>").format(share.score, share.low, share.high)
