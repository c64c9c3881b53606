"""The figures of a report.json as tables of a page: arms, pairs, recall, groups, and whatever else there is.

An arm is what comem_ray.evaluation.figures makes of one: its field `knowledge` (items in the knowledge base) is there
only where several sizes were asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from comem_ray.prompts import MODES
from comem_ray.report.official import OWN as OFFICIAL
from comem_ray.report.official import official_tables
from comem_ray.report.page import Table

Arms = Mapping[str, Mapping[str, Any]]

_ARM = {"score", "low", "high", "n", "mode", "k", "gold_position", "knowledge", "prompt_tokens", "memory_vectors"}
_ARM |= {"first_token_ms", "answer_ms", "groups"}
_OWN = {"arms", "recall", "recall_by_knowledge", "memory_against_rag", "memory_store", *OFFICIAL}


def in_order(arms: Arms) -> dict[str, Mapping[str, Any]]:
    """By mode, size of the knowledge base, k; those with a forced place last."""

    def order(entry: tuple[str, Mapping[str, Any]]) -> tuple[Any, ...]:
        arm = entry[1]
        return (
            arm["gold_position"] is not None,
            MODES.index(arm["mode"]),
            knowledge(arm),
            arm["k"],
            arm["gold_position"] or 0,
        )

    return dict(sorted(arms.items(), key=order))


def knowledge(arm: Mapping[str, Any]) -> int:
    """Items in the knowledge base; 0 where there was but one size."""
    return arm.get("knowledge") or 0


def retrieved(arms: Arms) -> list[Mapping[str, Any]]:
    """The arms whose items are as retrieval had them, with the largest knowledge base; and `none`."""
    largest = max(map(knowledge, arms.values()), default=0)
    return [a for a in arms.values() if a["gold_position"] is None and (a["mode"] == "none" or knowledge(a) == largest)]


def best(arms: Arms) -> dict[str, Mapping[str, Any]]:
    """The best of `retrieved` in each mode."""
    found: dict[str, Mapping[str, Any]] = {}
    for arm in retrieved(arms):
        if arm["mode"] not in found or arm["score"] > found[arm["mode"]]["score"]:
            found[arm["mode"]] = arm
    return found


def tiles(arms: Arms) -> list[dict[str, str]]:
    """The best arm of each mode, as it stands at the top."""
    return [
        {
            "mode": mode,
            "name": mode if mode == "none" else f"{mode}, k={arm['k']}",
            "score": f"{arm['score']:.1f}%",
            "interval": f"95% interval {span(arm)}, n = {arm['n']:,}",
            "cost": f"{arm['prompt_tokens']:g} prompt tokens" + _vectors(arm),
        }
        for mode, arm in best(arms).items()
    ]


def _vectors(arm: Mapping[str, Any]) -> str:
    return f" + {arm['memory_vectors']:g} memory vectors" if arm["memory_vectors"] else ""


def lead(found: Mapping[str, Any], arms: Arms) -> str:
    """What the tiles are, in a sentence."""
    ks = sorted({a["k"] for a in arms.values() if a["mode"] != "none" and a["gold_position"] is None})
    chosen = f", each with the k ({', '.join(map(str, ks))}) that was best here" if len(ks) > 1 else ""
    said = f"Right answers to {found['questions']:,} questions, by mode{chosen}."
    memory = best(arms).get("memory")
    name = next((n.removeprefix("memory, ") for n, arm in arms.items() if arm is memory), "")
    if name not in found["memory_against_rag"]:
        return said
    pair = found["memory_against_rag"][name]
    gain, p = f"{pair['difference']:+.1f}", _probability(pair["mcnemar_p"])
    return f"{said} Memory less rag, {name}: {gain} points (p of McNemar's test: {p})."


def span(share: Mapping[str, float]) -> str:
    """The interval of a share."""
    return f"{share['low']:.1f} to {share['high']:.1f}"


def tables(found: Mapping[str, Any], arms: Arms) -> list[Table]:
    """All but the groups."""
    figures = [_arms(arms), *_pairs(found["memory_against_rag"], arms), *_recall(found["recall"])]
    sizes = found.get("recall_by_knowledge", {})
    if len(sizes) > 1:
        smaller = sorted(sizes.items(), key=lambda entry: int(entry[0]))
        figures += [t for n, share in smaller for t in _recall(share, f"Recall of retrieval among {int(n):,} items")]
    return figures + official_tables(found, list(arms)) + _others(found, arms)


def _arms(arms: Arms) -> Table:
    sizes = any(map(knowledge, arms.values()))
    head = ["arm", "right, %", "95% interval", "questions", *["knowledge items"] * sizes]
    head += ["prompt tokens", "memory vectors", "first token, ms", "answer, ms"]
    rows = []
    for name, arm in arms.items():
        known = [f"{knowledge(arm):,}" if knowledge(arm) else ""] * sizes
        cost = [_number(arm[c]) for c in ("prompt_tokens", "memory_vectors", "first_token_ms", "answer_ms")]
        rows.append([name, f"{arm['score']:.1f}", span(arm), f"{arm['n']:,}", *known, *cost])
    note = (
        "Mean score by the benchmark's own rule, with its Wilson interval. Tokens and vectors are means; times are "
        "medians of the questions asked once more, one at a time, memory read from the store. An arm with the right "
        "item at a place has it put there, among its nearest look-alikes, and leaves out questions without a known one."
    )
    return Table("Every arm", head, rows, note)


def _pairs(pairs: Mapping[str, Mapping[str, float]], arms: Arms) -> list[Table]:
    note = (
        "Both modes on the same questions with the same items. p is that of McNemar's exact test, two-sided: how "
        "likely so uneven a count of questions that only one of the two got right would be if both were equally good. "
        "A score of one half or more counts as right."
    )
    names = [name for arm in arms if (name := arm.removeprefix("memory, ")) in pairs and name != arm]
    rows = [
        [n, f"{pairs[n]['difference']:+.1f}", _probability(pairs[n]["mcnemar_p"]), f"{pairs[n]['n']:,}"] for n in names
    ]
    return [Table("Memory less rag", ["arm", "points", "p", "questions"], rows, note)] if rows else []


def _probability(p: float) -> str:
    return f"{p:.3g}" if p else "< 0.0001"  # report.json has four decimals


def _recall(recall: Mapping[str, Mapping[str, float]], caption: str = "Recall of retrieval") -> list[Table]:
    ordered = sorted(recall.items(), key=lambda entry: int(entry[0].removeprefix("@")))
    rows = [[name, f"{r['score']:.1f}", span(r), f"{r['n']:,}"] for name, r in ordered]
    note = "Share of the questions with a known right item that have it among the first k retrieved."
    return [Table(caption, ["k", "%", "95% interval", "questions"], rows, note)] if rows else []


def group_tables(arms: Arms) -> list[Table]:
    """A table a group (language, kind of question, ...) of several values: a row a value, a column an arm."""
    names = sorted({name for arm in arms.values() for name in arm["groups"]})
    return [table for name in names if len((table := _group(name, arms)).rows) > 1]


def _group(name: str, arms: Arms) -> Table:
    parts = [arm["groups"].get(name, {}) for arm in arms.values()]
    rows = []
    for value in sorted({value for part in parts for value in part}):
        n = max(part[value]["n"] for part in parts if value in part)
        rows.append([value, f"{n:,}", *(_share(part.get(value)) for part in parts)])
    return Table(f"By {name}: right, %, and 95% interval", [name, "questions", *arms], rows)


def _share(share: Mapping[str, float] | None) -> str:
    if share is None:
        return ""
    return Markup("{:.1f}<br><small>{:.0f} to {:.0f}</small>").format(share["score"], share["low"], share["high"])


def _others(found: Mapping[str, Any], arms: Arms) -> list[Table]:
    """Figures this page knows nothing of, such as a benchmark's official ones: a table a name."""
    others = {name: value for name, value in found.items() if name not in _OWN and isinstance(value, Mapping)}
    for name in sorted({field for arm in arms.values() for field in arm if field not in _ARM}):
        others[name] = {**others.get(name, {}), **{arm: f[name] for arm, f in arms.items() if name in f}}
    return [table for name, value in sorted(others.items()) if (table := _nested(name, value)) is not None]


def _nested(name: str, value: Mapping[str, Any]) -> Table | None:
    rows = list(_leaves(value))
    columns = list(dict.fromkeys(column for _, row in rows for column in row))
    head = ["figure", *(column.replace("_", " ") for column in columns)]
    cells = [[label or name, *(_number(row.get(column)) for column in columns)] for label, row in rows]
    caption = name.replace("_", " ")
    return Table(caption[:1].upper() + caption[1:], head, cells) if cells else None


def _leaves(value: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """A row for every mapping that holds something else than mappings."""
    if row := {k: v for k, v in value.items() if not isinstance(v, Mapping)}:
        yield " · ".join(path), row
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, (*path, str(key)))


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ": ".join(map(str, value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return (" to " if len(value) == 2 else ", ").join(map(_number, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
